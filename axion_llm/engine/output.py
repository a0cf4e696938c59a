"""What one sequence has said and not sent yet, and how its next token is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.constraint import Constraint, Masks
from axion_llm.engine.echo import PromptLogprobs
from axion_llm.engine.sampler import Floats, Sampler
from axion_llm.engine.text import TextStream
from axion_llm.worker.messages import Generate, TokenLogprob


@dataclass(eq=False)
class Output:
    sampler: Sampler
    text: TextStream
    constraint: Constraint | None
    shown: dict[int, bytes]  # control tokens that are text here
    forced: list[int] = field(default_factory=list)  # come next, whatever the logits say
    num_unsent: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: PromptLogprobs = field(default_factory=PromptLogprobs)

    @classmethod
    def of(cls, request: Generate, tokens: list[int], constraint: Constraint | None, model: LlamaModel) -> Output:
        shown = {t: text.encode() for text in request.shown for t in model.control_token(text)}
        output = cls(Sampler(request.sampling, tokens), TextStream(request.stop), constraint, shown)
        output.forced = constraint.forced() if constraint else []
        return output

    @property
    def is_complete(self) -> bool:
        """By its grammar."""
        return self.constraint is not None and self.constraint.is_complete

    def want_masks(self, masks: Masks, row: int, draft: list[int]) -> None:
        if self.constraint and self.constraint.is_active and (draft or not self.forced):
            masks.want(self.constraint, row, draft)

    def next_token(self, logits: Floats, best: int, masks: Masks, row: int) -> int:
        """Drawn from `logits` ([n_vocab]) as far as the grammar leaves a choice."""
        if self.forced:
            return self.forced[0]
        is_bound = self.constraint is not None and self.constraint.is_active
        return self.sampler.sample(logits, best, masks.row(row) if is_bound else None)

    def accept(self, token: int, piece: bytes) -> bool:
        """The grammar and the penalties take note of the next token; True when there was no choice.

        Raises BadRequest when the grammar has become too much to follow.
        """
        if self.constraint is None:
            return False
        if self.forced:
            self.constraint.accept(token, piece)
            self.sampler.remember(self.forced.pop(0))
            return True
        if not self.constraint.is_complete:
            self.constraint.accept(token, piece)
            self.forced = self.constraint.forced()
        return False

    def piece(self, token: int, model: LlamaModel) -> bytes:
        return self.shown.get(token) or model.piece(token)
