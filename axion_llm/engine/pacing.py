"""How long a step may take, and so how many prompt tokens go into it: the measured speed of this model on this machine.

A step of decodes costs `decode_seconds`; each prompt token beside them adds `token_seconds`. Both are running averages,
so they follow a growing context or a machine that is shared.
"""

from __future__ import annotations

from dataclasses import dataclass

# A short list: equal shapes let llama.cpp use its graph again.
CHUNK_SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
FIRST_CHUNK = 32  # before anything was measured
UNKNOWN_TOKEN_SECONDS = 0.001
IDLE_STEP_SECONDS = 0.5  # nothing decodes: a new request waits no longer than that for a prompt's chunk
IDLE_CHUNK = 128  # … but a chunk of that size is always worth it: smaller ones are slower per token
TILE_COLUMNS = 8  # that our kernels compute at once: a ninth costs as much as another eight
SPARE = 0.1  # of a step of decodes, that tokens which need not be drawn may add to it
NEWEST = 0.3  # weight of the newest measurement
INTERACTIVE_SECONDS = 10.0  # of waiting, that an interactive request has ahead of a standard one


@dataclass
class Pacing:
    """`step_seconds`: what a step may take while anything decodes."""

    step_seconds: float = 0.06
    decode_seconds: float = 0.0  # of a step that only decodes; 0: not measured
    token_seconds: float = 0.0  # of one prompt token

    def observe(self, num_decodes: int, num_prompt_tokens: int, seconds: float) -> None:
        """A step was measured."""
        if not num_prompt_tokens:
            self.decode_seconds = _blend(self.decode_seconds, seconds)
            return
        decode_seconds = self.decode_seconds if num_decodes else 0.0
        # At least half of it for the prompt: the decodes' share may be out of date.
        spent = max(seconds - decode_seconds, seconds / 2)
        if num_prompt_tokens >= CHUNK_SIZES[0]:  # less says little about a token's price
            self.token_seconds = _blend(self.token_seconds, spent / num_prompt_tokens)

    def chunk(self, n_batch: int, num_decodes: int) -> int:
        """Prompt tokens for the next step: the largest size that keeps it within its time."""
        room = n_batch - num_decodes
        if num_decodes:
            wanted = self._affordable(self.step_seconds - self.decode_seconds, FIRST_CHUNK)
        else:
            wanted = max(self._affordable(IDLE_STEP_SECONDS, IDLE_CHUNK), IDLE_CHUNK)
            if wanted >= CHUNK_SIZES[-1]:
                return room
        return min(max((s for s in CHUNK_SIZES if s <= wanted), default=CHUNK_SIZES[0]), room)

    def spare_tokens(self, num_decodes: int) -> int:
        """That a step of decodes takes along without holding the other streams up."""
        return min(self._affordable(SPARE * self.decode_seconds, 0), -num_decodes % TILE_COLUMNS)

    def _affordable(self, seconds: float, unknown: int) -> int:
        return int(max(seconds, 0.0) / self.token_seconds) if self.token_seconds else unknown

    def prefill_seconds(self, num_tokens: int) -> float:
        """How long that many prompt tokens take, alone."""
        return num_tokens * (self.token_seconds or UNKNOWN_TOKEN_SECONDS)

    def rank(self, num_tokens_left: int, waited_seconds: float, *, interactive: bool) -> float:
        """Who goes first: the smallest. Shortest remaining time, less the time it has waited.

        So a request passes another only by as much as it is shorter, and nothing waits for ever; interactive ones
        start with a lead.
        """
        lead = INTERACTIVE_SECONDS if interactive else 0.0
        return self.prefill_seconds(num_tokens_left) - waited_seconds - lead


def _blend(old: float, new: float) -> float:
    return new if not old else old + NEWEST * (new - old)
