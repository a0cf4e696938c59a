"""What is going to be done for a request: the outcome of routing, and all that deciding goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.ballot import Question

Method = Literal["route", "cascade", "vote", "best_of", "synthesize", "self"]
"""A strategy that does something: `auto` has become one of these."""


@dataclass(frozen=True)
class Expert:
    """A model that may be asked."""

    name: str
    weight: float = 1.0  # of its vote, see vote.log_odds_weight
    roles: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()  # ISO 639-1; none: not said
    size_bytes: int = 0  # small is fast, for nothing better is known
    is_loaded: bool = True
    has_failed: bool = False  # its last load did not succeed: asked where it is named, or where nobody else is
    is_reserve: bool = False  # asked only where nobody else can
    load_seconds: float = 0.0  # estimated, when it is not loaded
    first_token_seconds: float = 30.0
    total_seconds: float = 120.0
    strength: float = 0.0  # for the choice of an aggregator: measured, or a guess from the size
    sampling_temperature: float = 1.0  # its own default


@dataclass(frozen=True)
class Limits:
    """Seconds from the beginning of the request, except where it says otherwise."""

    deadline: float
    experts_deadline: float  # earlier where a synthesis follows
    patience: float | None  # None: as long again as the quorum took
    first_token: Mapping[str, float] = field(default_factory=dict)  # from an expert's start
    total: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """A call to be made."""

    expert: str
    sample: int = 0
    weight: int = 1
    stage: int = 0


@dataclass(frozen=True)
class Plan:
    method: Method
    slots: tuple[Slot, ...]
    limits: Limits
    min_successful: int = 1
    falls_back: bool = True
    early_stop: bool = True
    question: Question = field(default_factory=Question)
    aggregators: tuple[str, ...] = ()
    temperature: float | None = None  # instead of the request's or the model's
    is_single_handed: bool = False  # tool calls, images: nothing to compare, the first expert does it all
    reason: str = ""
    signals: Mapping[str, Any] = field(default_factory=dict)

    def attempts(self) -> list[Attempt]:
        return [Attempt(i, s.expert, s.sample, s.weight, s.stage) for i, s in enumerate(self.slots)]

    @property
    def experts(self) -> list[str]:
        return list(dict.fromkeys(slot.expert for slot in self.slots))

    @property
    def experts_at_once(self) -> int:
        """The most experts that could compute at the same time."""
        stages = {slot.stage for slot in self.slots}
        return max(len({s.expert for s in self.slots if s.stage == stage}) for stage in stages)

    @property
    def is_relayed(self) -> bool:
        """The first answer is the answer, so it can be shown as it is written."""
        return self.method == "route"
