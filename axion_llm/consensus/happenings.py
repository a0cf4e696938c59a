"""What the orchestrator tells while it works; the server, the terminal and the tests listen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.plan import Plan


@dataclass(frozen=True)
class Planned:
    plan: Plan


@dataclass(frozen=True)
class Started:
    """The expert has taken the request and reads it."""

    attempt: Attempt


@dataclass(frozen=True)
class Wrote:
    attempt: Attempt
    text: str


@dataclass(frozen=True)
class Ended:
    attempt: Attempt
    votes: dict[str, float]  # share of each answer so far


@dataclass(frozen=True)
class Decided:
    by: str
    agreement: float | None
    attempt: Attempt | None  # None: an aggregator will write the answer


@dataclass(frozen=True)
class Aggregating:
    model: str


@dataclass(frozen=True)
class Text:
    """Of the answer itself."""

    text: str


@dataclass(frozen=True)
class Done:
    finish_reason: str
    consensus: dict[str, Any]
    usage: dict[str, Any]


Happening = Planned | Started | Wrote | Ended | Decided | Aggregating | Text | Done
