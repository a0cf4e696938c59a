"""One request inside the engine: its tokens, how far they are computed, where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from axion_llm.engine.drafting import Drafter
from axion_llm.engine.prefix_cache import EVERYBODY, Border, Node
from axion_llm.worker.messages import Generate


class Status(Enum):
    WAITING = "waiting"  # has no place in the KV cache
    RUNNING = "running"  # has a sequence id; its prompt may still be in prefill
    ENDED = "ended"


@dataclass(frozen=True, eq=False)
class Placed:
    """A picture's place among the tokens, where it has ids below zero. Computed in one step or not at all."""

    start: int
    end: int
    seen: Any  # the engine's


@dataclass(eq=False)
class Sequence:
    """Pure bookkeeping: the scheduler moves status, seq_id, held and num_computed, the engine appends tokens."""

    request: Generate
    tokens: list[int]  # prompt, then what was generated
    max_total: int  # tokens it may grow to, prompt and output together
    arrival: float  # seconds, monotonic
    drafter: Drafter | None = None
    pictures: list[Placed] = field(default_factory=list)  # in order
    border: Border = EVERYBODY  # whom it shares what it computes with
    num_prompt: int = field(init=False)
    num_computed: int = 0  # of `tokens`, how many are in the KV cache
    num_cached: int = 0  # of the prompt, how many were there already when it was first admitted
    seq_id: int = -1
    held: Node | None = None  # the part of the prefix cache that it shares, locked
    status: Status = Status.WAITING
    is_echoed: bool = False  # the prompt was sent back, as far as the request wants that
    first_scheduled: float | None = None
    first_token: float | None = None
    fault: Exception | None = None  # what went wrong for it alone while a step was planned

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def picture_at(self, position: int) -> Placed | None:
        """The picture that has this position, if one has."""
        return next((p for p in self.pictures if p.start <= position < p.end), None)

    def text_until(self, position: int) -> int:
        """Where the text that goes on at this position ends: at the next picture, or with the tokens."""
        return min((p.start for p in self.pictures if p.start >= position), default=len(self.tokens))

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Then all its prompt has to be computed, whatever the prefix cache has."""
        return self.request.echo and self.request.top_logprobs is not None and not self.is_echoed

    def guesses(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next. A drafter that fails ends its own sequence, after this step."""
        if self.drafter is None or most <= 0:
            return []
        try:
            return self.drafter.propose(most)
        except Exception as error:
            self.fault, self.drafter = error, None
            return []

    @property
    def num_shown(self) -> int:
        """Of its first tokens, those that any other may share."""
        return self.border.num_public if self.border.tenant else len(self.tokens)

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_to_compute(self) -> int:
        """Tokens not in the cache yet; 1 for a sequence that decodes."""
        return len(self.tokens) - self.num_computed

    @property
    def num_own_cells(self) -> int:
        """Cells that only this sequence holds."""
        return self.num_computed - (self.held.end if self.held else 0)

    @property
    def is_decoding(self) -> bool:
        return self.num_to_compute == 1 and self.num_output > 0

    @property
    def is_full(self) -> bool:
        return len(self.tokens) >= self.max_total
