"""Random company for a sequence: one model driven through random batches, every position's logits kept.

The engine promises the same answer at any load, so whatever `Load` does to a sequence (other sequences beside it, its
prompt in pieces, its prefix taken from a neighbour, holes in the cache), its logits must not change by a bit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from axion_llm.engine.binding import Batch, LlamaModel, lib

Rows = npt.NDArray[np.uint32]  # [positions, n_vocab]: logits as bits, so that NaN equals itself and -0 differs from 0


@dataclass
class Sequence:
    """What a sequence is to hold, and what has been seen of it."""

    seq_id: int
    tokens: list[int]
    done: int = 0
    logits: dict[int, Rows] = field(default_factory=dict)  # by position

    @property
    def left(self) -> int:
        return len(self.tokens) - self.done


class RandomLoad:
    """Runs sequences through `model` in batches chosen by `rng`; `most` is the longest batch."""

    def __init__(self, model: LlamaModel, rng: random.Random, most: int | None = None) -> None:
        self.model, self.rng, self.most = model, rng, most or model.n_batch
        self._batch = Batch(model.n_batch)

    def step(self, parts: list[tuple[Sequence, int]]) -> None:
        """One decode: the next `count` tokens of each sequence."""
        batch = self._batch
        batch.clear()
        for sequence, count in parts:
            batch.add(sequence.tokens[sequence.done : sequence.done + count], sequence.done, sequence.seq_id, True)
        batch.outputs[: batch.size] = 1
        assert self.model.decode(batch), "the cache is full: the test asks for too much"
        rows = self.model.logits(batch.size).view(np.uint32)
        row = 0
        for sequence, count in parts:
            for _ in range(count):
                sequence.logits[sequence.done] = rows[row].copy()
                sequence.done, row = sequence.done + 1, row + 1

    def alone(self, tokens: list[int]) -> Sequence:
        """The reference: one sequence, as few batches as possible; leaves the cache empty."""
        sequence = Sequence(0, tokens)
        while sequence.left:
            self.step([(sequence, min(sequence.left, self.model.n_batch))])
        self.model.truncate(0, 0)
        return sequence

    def together(self, sequences: list[Sequence]) -> None:
        """All sequences to their ends: random members, order and chunks; often single tokens, as in decoding."""
        while open_ := [s for s in sequences if s.left]:
            members = self.rng.sample(open_, self.rng.randint(1, len(open_)))
            room, parts = self.most, []
            for sequence in members:
                count = min(sequence.left, room, self.rng.choice([1, 1, 2, 3, 7, 8, 16, 33, 100, self.most]))
                if count:
                    parts.append((sequence, count))
                    room -= count
            self.step(parts)

    def share(self, source: Sequence, seq_id: int, tokens: list[int], num_shared: int) -> Sequence:
        """A sequence whose first tokens are taken from the cache of another instead of being computed."""
        assert source.done >= num_shared and source.tokens[:num_shared] == tokens[:num_shared]
        lib.llama_memory_seq_cp(self.model._memory, source.seq_id, seq_id, 0, num_shared)
        return Sequence(seq_id, tokens, done=num_shared)

    def make_holes(self, num: int) -> None:
        """Fill the cache with sequences and free some: what follows lies scattered over the cells."""
        ids = range(self.model.n_seq_max - num, self.model.n_seq_max)
        fillers = [Sequence(i, self.tokens(self.rng.randint(3, 70))) for i in ids]
        self.together(fillers)
        for filler in fillers[::2]:
            self.model.truncate(filler.seq_id, 0)
        for filler in fillers[1::2]:
            lib.llama_memory_seq_rm(self.model._memory, filler.seq_id, 1, self.rng.randint(2, filler.done))

    def tokens(self, count: int) -> list[int]:
        return [self.rng.randrange(20, self.model.n_vocab) for _ in range(count)]

    def clear(self) -> None:
        for i in range(self.model.n_seq_max):
            self.model.truncate(i, 0)


def differences(reference: Sequence, seen: Sequence) -> list[tuple[int, float]]:
    """(position, largest absolute difference) wherever the bits differ."""
    found = []
    for position, row in seen.logits.items():
        if not np.array_equal(row, reference.logits[position]):
            gap = np.abs(row.view(np.float32) - reference.logits[position].view(np.float32)).max()
            found.append((position, float(gap)))
    return found
