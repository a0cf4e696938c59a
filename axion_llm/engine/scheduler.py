"""Who computes what in the next step: pure bookkeeping over sequences, KV cells and sequence ids.

A step takes every decoding sequence first, one token each, then prompt chunks with what is left of the batch, so that
a long prompt never stops a running stream. A request is admitted when its prompt and a first stretch of output fit into
the free cells; when the cache fills up all the same, the youngest goes back to waiting with its tokens kept, and is
computed anew later (vLLM's preemption by recomputation).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from axion_llm.engine.sequence import Sequence, Status

CHUNK_BESIDE_DECODES = 64  # most prompt tokens in a step that also decodes
OUTPUT_RESERVE = 128  # cells a request must find free for its output before it starts, if it may want that many


@dataclass(frozen=True)
class Slice:
    """Tokens [start, start + count) of a sequence, to be computed in this step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def wants_logits(self) -> bool:
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(frozen=True)
class Step:
    slices: list[Slice]
    preempted: list[int] = field(default_factory=list)  # sequence ids whose cells are to be freed before the step

    @property
    def num_tokens(self) -> int:
        return sum(s.count for s in self.slices)


class Scheduler:
    """Invariants: a sequence id has one owner; cells in use never exceed `num_cells`; every sequence ends or waits."""

    def __init__(self, num_cells: int, n_seq_max: int, n_batch: int) -> None:
        self.num_cells = num_cells
        self.n_batch = n_batch
        self._free_ids = list(range(n_seq_max - 1, -1, -1))
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of admission

    @property
    def cells_used(self) -> int:
        return sum(s.num_computed for s in self.running)

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Interactive requests queue before standard ones, each kind in order of arrival."""
        if not sequence.request.interactive:
            self.waiting.append(sequence)
            return
        at = sum(s.request.interactive for s in self.waiting)
        self.waiting.insert(at, sequence)

    def end(self, sequence: Sequence) -> int | None:
        """Take a sequence out for good; the sequence id whose cells are free now, if it had one."""
        if sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        freed = self._release(sequence) if sequence.status is Status.RUNNING else None
        sequence.status = Status.ENDED
        return freed

    def schedule(self) -> Step:
        """The next step. Empty when nothing can run."""
        preempted = self._make_room()
        if not preempted:
            self._admit()
        slices = self._slices()
        while not slices and len(self.running) > 1:  # prompts that hold all cells between them: one has to go back
            preempted.append(self._preempt())
            slices = self._slices()
        return Step(slices, preempted)

    def _slices(self) -> list[Slice]:
        decodes = [Slice(s, s.num_computed, 1) for s in self.running if s.is_decoding]
        budget = self.n_batch - len(decodes)
        if decodes:
            budget = min(budget, CHUNK_BESIDE_DECODES)
        return decodes + self._chunks(budget)

    def commit(self, step: Step) -> None:
        """The step was computed: its tokens are in the cache."""
        for s in step.slices:
            s.sequence.num_computed = s.start + s.count

    def shrink_to_fit(self) -> int | None:
        """The cache took less than `num_cells`: never plan for more than is in it now, and preempt the youngest.

        The id whose cells are to be freed; None when one sequence has the cache to itself and no preemption can help.
        """
        if len(self.running) < 2:
            return None
        self.num_cells = self.cells_used
        return self._preempt()

    def _preempt(self) -> int:
        """Send the sequence admitted last back to waiting; the id whose cells are free now."""
        sequence = self.running[-1]
        freed = self._release(sequence)
        sequence.status, sequence.num_computed = Status.WAITING, 0
        self.waiting.appendleft(sequence)
        return freed

    def _release(self, sequence: Sequence) -> int:
        freed, sequence.seq_id = sequence.seq_id, -1
        self.running.remove(sequence)
        self._free_ids.append(freed)
        return freed

    def _make_room(self) -> list[int]:
        """Preempt until every decoding sequence can take its next token."""
        freed: list[int] = []
        while len(self.running) > 1 and self.cells_used + sum(s.is_decoding for s in self.running) > self.num_cells:
            freed.append(self._preempt())
        return freed

    def _admit(self) -> None:
        promised = sum(self._wanted(s) for s in self.running)
        while self.waiting and self._free_ids:
            sequence = self.waiting[0]
            wanted = self._wanted(sequence)
            if promised + wanted > self.num_cells and self.running:
                break  # in order: a long prompt at the head is not overtaken for ever
            promised += wanted
            self.waiting.popleft()
            sequence.seq_id = self._free_ids.pop()
            sequence.status = Status.RUNNING
            self.running.append(sequence)

    def _wanted(self, sequence: Sequence) -> int:
        return min(len(sequence.tokens) + OUTPUT_RESERVE, sequence.max_total)

    def _chunks(self, budget: int) -> list[Slice]:
        """Prompt chunks, interactive first, then in order of admission. One alone is bound by the batch only."""
        free = self.num_cells - self.cells_used - sum(s.is_decoding for s in self.running)
        free = free if len(self.running) > 1 else budget
        slices: list[Slice] = []
        prefilling = [s for s in self.running if not s.is_decoding]
        for s in sorted(prefilling, key=lambda s: not s.request.interactive):
            count = min(s.num_to_compute, budget, free)
            if count <= 0:
                break
            slices.append(Slice(s, s.num_computed, count))
            budget -= count
            free -= count
        return slices
