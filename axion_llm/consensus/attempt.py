"""One call of one expert: what was planned, and how far it is. The orchestrator writes it, decisions only read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from axion_llm.api.tools.plan import ToolPlan
from axion_llm.consensus.ballot import Ballot
from axion_llm.errors import AxionError

Status = Literal["waiting", "running", "ok", "blank", "cut", "failed", "timeout", "cancelled"]
"""cut: it ran into our own limit of tokens, so nobody knows what it would have said."""

LIVE: tuple[Status, ...] = ("waiting", "running")


@dataclass
class Attempt:
    index: int
    expert: str
    sample: int = 0  # of this expert
    weight: int = 0  # of its vote, in vote.UNIT
    stage: int = 0  # starts when the stages before it did not settle the matter
    status: Status = "waiting"
    texts: list[str] = field(default_factory=list)
    ballot: Ballot | None = None  # what its answer comes down to
    error: AxionError | None = None
    started: float | None = None  # seconds on the orchestrator's clock; since when the model is there
    asked: float | None = None  # when the call began, before any load
    first_token: float | None = None
    ended: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    tools: ToolPlan | None = None  # how the expert calls tools, when it is asked and the request has some

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    @property
    def is_partial(self) -> bool:
        """It has said something when its time or its tokens ran out."""
        return self.status in ("cut", "timeout") and bool(self.text.strip())
