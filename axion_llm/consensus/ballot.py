"""What an answer comes down to, so that answers can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "choice", "yes_no", "date", "label", "json", "code", "short", "prose"]


@dataclass(frozen=True)
class Question:
    """What kind of answer is wanted, as far as the request shows."""

    kind: Kind = "prose"
    text: str = ""
    unit: str | None = None  # canonical, see units.py
    labels: tuple[str, ...] = ()  # what may be chosen from
    choices: tuple[tuple[str, str], ...] = ()  # letter and text of each


@dataclass(frozen=True)
class Ballot:
    """Two answers agree exactly when their keys are equal."""

    kind: Kind
    key: str
    shown: str  # for people
