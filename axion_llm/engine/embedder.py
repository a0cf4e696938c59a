"""Embeddings beside the streams: after each of their steps, a batch of inputs sized by the clock.

Inputs of all requests share batches, the request with the least left to compute goes first (with ageing, as prompts
do). An input that is longer than a batch comes in pieces; its hidden states are summed up as they come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.embedding_context import MAX_SEQUENCES, EmbeddingContext, Rows
from axion_llm.engine.pacing import Pacing
from axion_llm.errors import AxionError, BadRequest, ContextLengthExceeded, EngineError, Overloaded, unexpected
from axion_llm.worker.messages import Embed, Embedded, Failed

STEP_PART = 0.5  # of a step's time, that embeddings may take as well while anything else runs


@dataclass(eq=False)
class _Input:
    job: _Job
    index: int
    tokens: list[int]
    num_computed: int = 0
    seq_id: int = -1
    pooled: npt.NDArray[np.float64] | None = None

    @property
    def num_left(self) -> int:
        return len(self.tokens) - self.num_computed


@dataclass(eq=False)
class _Job:
    request_id: str
    arrival: float
    inputs: list[_Input] = field(default_factory=list)  # not begun, the next one last
    vectors: list[bytes] = field(default_factory=list)
    num_tokens: int = 0
    num_tokens_left: int = 0
    num_inputs_left: int = 0


@dataclass(frozen=True)
class _Slice:
    input: _Input
    count: int


class Embedder:
    """One thread calls it, the one that steps the engine; `tokenize` alone may run elsewhere."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._context = EmbeddingContext(model)
        self._pacing = Pacing(model.load.step_seconds * STEP_PART)
        self._jobs: dict[str, _Job] = {}
        self._begun: list[_Input] = []
        self._rests_until = 0.0  # while streams run: the smallest batch may be more than its share
        self._free_ids = list(range(MAX_SEQUENCES - 1, -1, -1))
        self.max_tokens = self._context.max_tokens if model.pooling != "rank" else 0

    @property
    def has_work(self) -> bool:
        return bool(self._jobs)

    # ---- requests

    def tokenize(self, request: Embed) -> list[list[int]]:
        """Tokens of each input; raises when one is empty or too long."""
        if not self.max_tokens:
            raise BadRequest("model: this one ranks texts and gives no embeddings", param="model")
        return [self._tokens(i, text) for i, text in enumerate(request.inputs)]

    def _tokens(self, index: int, text: str | list[int]) -> list[int]:
        tokens = self._model.tokenize(text, True, False) if isinstance(text, str) else text
        if any(not 0 <= t < self._model.n_vocab for t in tokens):
            last = self._model.n_vocab - 1
            raise BadRequest(f"input[{index}]: token ids of this model are 0 to {last}", param="input")
        if not tokens:
            raise BadRequest(f"input[{index}]: is empty", param="input")
        if len(tokens) > self.max_tokens:
            raise ContextLengthExceeded(
                f"input[{index}] has {len(tokens)} tokens, this model embeds up to {self.max_tokens} at once: split it",
                param="input",
            )
        return tokens

    def add(self, request_id: str, inputs: list[list[int]]) -> None:
        if len(self._jobs) >= self._model.load.max_waiting:
            raise Overloaded(f"{len(self._jobs)} requests for embeddings are waiting for this model; try again later")
        job = _Job(request_id, time.monotonic(), vectors=[b""] * len(inputs), num_inputs_left=len(inputs))
        job.inputs = [_Input(job, i, tokens) for i, tokens in enumerate(inputs)][::-1]
        job.num_tokens = job.num_tokens_left = sum(map(len, inputs))
        self._jobs[request_id] = job

    def cancel(self, request_id: str) -> bool:
        job = self._jobs.pop(request_id, None)
        if job is None:
            return False
        for begun in [b for b in self._begun if b.job is job]:
            self._end(begun)
        return True

    # ---- the step

    def step(self, *, is_alone: bool) -> list[Embedded | Failed]:
        """One batch; the requests that are complete with it. Beside streams it has half of the time, no more."""
        began = time.monotonic()
        if not is_alone and began < self._rests_until:
            return []
        slices = self._plan(self._budget(is_alone))
        try:
            self._context.open()
            rows = self._compute(slices)
        except Exception as error:
            return list(self._fail({s.input.job.request_id for s in slices}, unexpected(error)))
        failed: list[Embedded | Failed] = []
        for s, end in zip(slices, accumulate(s.count for s in slices), strict=True):
            try:
                self._take(s, rows[end - s.count : end])
            except Exception as error:  # of this input: the others' vectors are right
                failed += self._fail({s.input.job.request_id}, unexpected(error))
        now = time.monotonic()
        self._rests_until = now + (now - began)
        return [*failed, *self._complete()]

    def _budget(self, is_alone: bool) -> int:
        return self._pacing.chunk(self._context.n_batch, 0 if is_alone else 1)

    def _plan(self, budget: int) -> list[_Slice]:
        """Inputs that have begun first: they hold cells. Then new ones as far as tokens, cells and ids go."""
        slices: list[_Slice] = []
        for begun in self._begun:
            if budget > 0:
                slices.append(_Slice(begun, min(begun.num_left, budget)))
                budget -= slices[-1].count
        for candidate in self._waiting():
            whole = self._context.is_whole
            fits = len(candidate.tokens) <= (budget if whole else self._num_free_cells())
            if not self._free_ids or budget <= 0 or not (fits or (whole and not slices)):
                break
            self._begin(candidate)
            slices.append(_Slice(candidate, len(candidate.tokens) if whole else min(candidate.num_left, budget)))
            budget -= slices[-1].count
        return slices

    def _waiting(self) -> Iterator[_Input]:
        now = time.monotonic()

        def rank(job: _Job) -> float:
            return self._pacing.rank(job.num_tokens_left, now - job.arrival, interactive=False)

        for job in sorted(self._jobs.values(), key=rank):
            while job.inputs:
                yield job.inputs[-1]

    def _num_free_cells(self) -> int:
        return self._context.n_cells - sum(len(b.tokens) for b in self._begun)

    def _begin(self, candidate: _Input) -> None:
        candidate.job.inputs.pop()
        candidate.seq_id = self._free_ids.pop()
        self._begun.append(candidate)

    def _compute(self, slices: list[_Slice]) -> Rows:
        batch = self._context.batch
        batch.clear()
        for s in slices:
            at = s.input.num_computed
            batch.add(s.input.tokens[at : at + s.count], at, s.input.seq_id, num_outputs=s.count)
        started = time.perf_counter()
        rows = self._context.decode()
        self._pacing.observe(0, batch.size, time.perf_counter() - started)
        return rows

    def _take(self, s: _Slice, rows: Rows) -> None:
        one = s.input
        one.pooled = pool(self._model.pooling, one.pooled, rows)
        one.num_computed += s.count
        one.job.num_tokens_left -= s.count
        if not one.num_left:
            one.job.vectors[one.index] = unit(one.pooled).astype("<f4").tobytes()
            one.job.num_inputs_left -= 1
            self._end(one)

    def _end(self, one: _Input) -> None:
        self._begun.remove(one)
        self._context.forget(one.seq_id)
        self._free_ids.append(one.seq_id)

    def _complete(self) -> Iterator[Embedded]:
        for job in [job for job in self._jobs.values() if not job.num_inputs_left]:
            del self._jobs[job.request_id]
            yield Embedded(job.request_id, job.vectors, job.num_tokens)

    def _fail(self, request_ids: set[str], error: AxionError) -> Iterator[Failed]:
        for request_id in request_ids:
            if not self.cancel(request_id):
                continue  # by another of its inputs
            yield Failed(request_id, error.code, error.message, error.param)


def pool(kind: str, so_far: npt.NDArray[np.float64] | None, rows: Rows) -> npt.NDArray[np.float64]:
    """The rows of an input that came before, and the next ones: first, last, or sum (whose direction is the mean's).

    Added up one after the other, so that it does not matter how the input was cut.
    """
    if kind == "cls":
        return np.array(rows[0], np.float64) if so_far is None else so_far
    if kind == "last":
        return np.array(rows[-1], np.float64)
    total: npt.NDArray[np.float64] = np.zeros(rows.shape[1]) if so_far is None else so_far
    for row in rows:
        total += row
    return total


def unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norm = float(np.sqrt(np.square(vector).sum()))
    if not np.isfinite(norm):
        raise EngineError("the model's hidden states are not numbers: a damaged file, or a kernel that went wrong")
    of_one: npt.NDArray[np.float64] = vector / (norm or 1.0)
    return of_one
