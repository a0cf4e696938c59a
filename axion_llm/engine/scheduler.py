"""Who computes what in the next step: pure bookkeeping over sequences, KV cells and sequence ids.

A step takes every decoding sequence first, one token each (and its guesses, see drafting), then prompt chunks sized by
the clock (see pacing), so that a long prompt never stops a running stream. A request is admitted when its prompt and a
first stretch of output fit into the cells that are not promised to others; what the prefix cache holds gives way. When
the cache fills up all the same, the youngest goes back to waiting with its tokens kept, and is computed anew later as
far as the prefix cache has lost it (vLLM's preemption by recomputation).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from axion_llm.engine.drafting import STREAMS
from axion_llm.engine.pacing import Pacing
from axion_llm.engine.prefix_cache import PrefixCache
from axion_llm.engine.sequence import Sequence, Status

OUTPUT_RESERVE = 128  # cells a request must find free for its output before it starts, if it may want that many
EVICTED_PART = 16  # of the KV cache, at least, is given up by the prefix cache at a time
LOGPROBS_CHUNK = 64  # tokens of a prompt whose logprobs are wanted: each takes a row of the whole vocabulary
SHARED_PREFIX = 64  # tokens in common with a prompt that is being computed, for which it is worth to wait for it


@dataclass(frozen=True)
class Slice:
    """Tokens [start, start + count) of a sequence, to be computed in this step, and guesses behind them."""

    sequence: Sequence
    start: int
    count: int
    draft: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return self.count + len(self.draft)

    @property
    def wants_logits(self) -> bool:
        return self.start + self.count == len(self.sequence.tokens)

    @property
    def num_outputs(self) -> int:
        if self.sequence.wants_prompt_logprobs:
            return self.count
        return 1 + len(self.draft) if self.wants_logits else 0


@dataclass(frozen=True)
class Step:
    slices: list[Slice]
    num_decodes: int  # the first of the slices

    @property
    def num_tokens(self) -> int:
        return sum(s.num_tokens for s in self.slices)

    @property
    def num_prompt_tokens(self) -> int:
        return sum(s.count for s in self.slices[self.num_decodes :])


class Scheduler:
    """Invariants: a sequence id has one owner; cells in use never exceed `num_cells`; every sequence ends or waits.

    `steps_per_decision`: so many steps of nothing but decodes go by before waiting requests are looked at again;
    an interactive arrival or an ending is acted on in the very next step.
    """

    def __init__(
        self,
        cache: PrefixCache,
        *,
        num_cells: int,
        max_running: int,
        n_batch: int,
        pacing: Pacing | None = None,
        steps_per_decision: int = 1,
    ) -> None:
        self.cache = cache
        self.num_cells = num_cells
        self.n_batch = n_batch
        self.pacing = pacing or Pacing()
        self.num_preemptions = 0
        self._max_running = max_running
        self._steps_per_decision = steps_per_decision
        self._steps_left = 0  # until the next decision
        self._was_picture = False  # in the step before
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []  # in order of admission

    @property
    def cells_used(self) -> int:
        """By running sequences and by the prefix cache, shared ones once."""
        return self.cache.num_cells + sum(s.num_own_cells for s in self.running)

    @property
    def num_free_places(self) -> int:
        """Sequences that could run beside those that do, if there are cells for them."""
        return self._max_running - len(self.running)

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        if sequence.request.interactive or not self.running:
            self._steps_left = 0

    def end(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Take a sequence out for good. `keep`: what it computed may serve others."""
        if sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        elif sequence.status is Status.RUNNING:
            self._release(sequence, keep=keep)
        sequence.status = Status.ENDED
        self._steps_left = 0

    def schedule(self, now: float) -> Step:
        """The next step. Empty when nothing can run."""
        if self._steps_left > 0 and self.running and all(s.is_decoding for s in self.running):
            self._steps_left -= 1
        else:
            self._admit(now)
            self._steps_left = self._steps_per_decision - 1
        self._make_room()
        step = self._plan(now)
        while not step.slices and len(self.running) > 1:  # prompts that hold all cells between them
            self._preempt()
            step = self._plan(now)
        missing = step.num_tokens - (self.num_cells - self.cells_used)
        if missing > 0:  # in large pieces: a cache with few free cells has to close ranks again and again
            self.cache.evict(max(missing, self.num_cells // EVICTED_PART))
        return step

    def commit(self, step: Step) -> None:
        """The step was computed: its tokens are in the cache (guesses are the caller's to count or cut off)."""
        for s in step.slices:
            sequence = s.sequence
            had_prompt = sequence.num_computed >= sequence.num_prompt
            sequence.num_computed = s.start + s.count
            if not had_prompt and sequence.num_computed >= sequence.num_prompt:
                self._publish(sequence)

    def shrink_to_fit(self) -> bool:
        """The cache took less than `num_cells`: drop what is only kept, else believe what is in it and preempt.

        False when one sequence has the cache to itself and nothing can help.
        """
        if self.cache.evict(self.cache.num_cells):
            return True
        if len(self.running) < 2:
            return False
        self.num_cells = self.cells_used
        self._preempt()
        return True

    # ---- in and out

    def _admit(self, now: float) -> None:
        if not self.waiting or len(self.running) >= self._max_running:
            return
        promised = sum(self._wanted(s) - s.num_computed + s.num_own_cells for s in self.running)
        for sequence in sorted(self.waiting, key=lambda s: self._rank(s, now)):
            if len(self.running) >= self._max_running:
                return
            if not sequence.wants_prompt_logprobs and self._will_share_soon(sequence):
                continue
            wanted = self._wanted(sequence)
            _, already_locked = self.cache.match(sequence.tokens, sequence.border)
            locked = self.cache.num_locked_cells - already_locked
            if self.running and promised + wanted + locked > self.num_cells:
                return  # in order: a long prompt that is first is not overtaken for ever
            seq_id = self.cache.take_id()
            if seq_id is None:
                return
            self.waiting.remove(sequence)
            self._start(sequence, seq_id)
            promised += wanted - sequence.num_computed

    def _start(self, sequence: Sequence, seq_id: int) -> None:
        shareable = [] if sequence.wants_prompt_logprobs else sequence.tokens
        count, _ = self.cache.match(shareable, sequence.border)
        if cut := sequence.picture_at(count):  # half a picture in the cache is of no use
            shareable = shareable[: cut.start + 1]
        sequence.held, count = self.cache.lend(shareable, seq_id, sequence.border)
        if sequence.first_scheduled is None:
            sequence.num_cached = min(count, sequence.num_prompt)
        sequence.seq_id, sequence.num_computed = seq_id, count
        sequence.status = Status.RUNNING
        self.running.append(sequence)

    def _release(self, sequence: Sequence, *, keep: bool) -> None:
        self.running.remove(sequence)
        assert sequence.held is not None
        if keep:
            computed = sequence.tokens[: sequence.num_computed]
            self.cache.keep(computed, sequence.seq_id, sequence.held, sequence.border)
        else:
            self.cache.give_back(sequence.seq_id)
        self.cache.unlock(sequence.held)
        sequence.seq_id, sequence.held = -1, None

    def _preempt(self) -> None:
        """Send the standard sequence admitted last, or else the interactive one, back to waiting."""
        standard = [s for s in self.running if not s.request.interactive]
        sequence = (standard or self.running)[-1]
        self._release(sequence, keep=True)
        sequence.status, sequence.num_computed = Status.WAITING, 0
        self.waiting.append(sequence)
        self.num_preemptions += 1

    def _publish(self, sequence: Sequence) -> None:
        """A prompt is computed: others with the same beginning need not wait for the end of its output."""
        assert sequence.held is not None
        prompt = sequence.tokens[: sequence.num_prompt]
        if len(prompt) - sequence.held.end >= SHARED_PREFIX:
            sequence.held = self.cache.publish(prompt, sequence.seq_id, sequence.held, sequence.border)

    def _will_share_soon(self, sequence: Sequence) -> bool:
        """Another prompt with a long common beginning is being computed right now, and the cache has less of it."""
        for other in self.running:
            if other.num_computed < other.num_prompt and _common_prefix(sequence, other) >= SHARED_PREFIX:
                have, _ = self.cache.match(sequence.tokens, sequence.border)
                return _common_prefix(sequence, other) >= have + SHARED_PREFIX
        return False

    def _make_room(self) -> None:
        """Preempt until every decoding sequence can take its next token; the prefix cache gives way first."""
        while len(self.running) > 1 and self._cells_free < sum(s.is_decoding for s in self.running):
            self._preempt()

    @property
    def _cells_free(self) -> int:
        """Cells that a step may use: unused ones and what the prefix cache can give up."""
        return self.num_cells - self.cells_used + self.cache.num_cells - self.cache.num_locked_cells

    def _wanted(self, sequence: Sequence) -> int:
        return min(len(sequence.tokens) + OUTPUT_RESERVE, sequence.max_total)

    def _rank(self, sequence: Sequence, now: float) -> float:
        left, interactive = sequence.num_to_compute, sequence.request.interactive
        return self.pacing.rank(left, now - sequence.arrival, interactive=interactive)

    # ---- the step

    def _plan(self, now: float) -> Step:
        decoding = [s for s in self.running if s.is_decoding]
        free = self._cells_free - len(decoding)
        picture = self._picture(free, now) if not (self._was_picture and decoding) else None
        self._was_picture = picture is not None
        if picture:
            return Step([picture], 0)
        if len(self.running) == 1:
            free = self.n_batch  # alone it may find out for itself that the cache is too small
        decodes = self._decodes(decoding, free)
        num_guesses = sum(len(s.draft) for s in decodes)
        budget = self.pacing.chunk(self.n_batch, len(decodes) + num_guesses) if len(decoding) < len(self.running) else 0
        return Step(decodes + self._chunks(budget, free - num_guesses, now), len(decodes))

    def _decodes(self, decoding: list[Sequence], free: int) -> list[Slice]:
        if len(decoding) > STREAMS or len(decoding) < len(self.running):
            return [Slice(s, s.num_computed, 1) for s in decoding]
        slices = []
        for s in decoding:
            most = min(s.max_total - len(s.tokens) - 1, free)
            draft = s.guesses(most)
            free -= len(draft)
            slices.append(Slice(s, s.num_computed, 1, draft))
        return slices

    def _picture(self, free: int, now: float) -> Slice | None:
        """The picture that is next, if the prompt that goes first is at one: a step of its own.

        Its tokens see each other, so it cannot be cut, and streams wait for it, though never for two in a row.
        """
        prefilling = [s for s in self.running if s.num_computed < s.num_prompt]
        first = min(prefilling, key=lambda s: self._rank(s, now), default=None)
        found = first.picture_at(first.num_computed) if first else None
        if first is None or found is None:
            return None
        fits = found.end - found.start <= free or len(self.running) == 1
        return Slice(first, found.start, found.end - found.start) if fits else None

    def _chunks(self, budget: int, free: int, now: float) -> list[Slice]:
        """Prompt chunks within the budget: the shortest remaining first, with ageing."""
        slices: list[Slice] = []
        prefilling = [s for s in self.running if not s.is_decoding]
        for s in sorted(prefilling, key=lambda s: self._rank(s, now)):
            most = LOGPROBS_CHUNK if s.wants_prompt_logprobs else budget
            count = min(s.text_until(s.num_computed) - s.num_computed, most, budget, free)
            if count <= 0:
                if s.picture_at(s.num_computed):
                    continue
                break
            slices.append(Slice(s, s.num_computed, count))
            budget -= count
            free -= count
        return slices


def _common_prefix(a: Sequence, b: Sequence) -> int:
    """Tokens that both prompts begin with and may share; 0 when they are fewer than SHARED_PREFIX."""
    shorter = min(len(a.tokens), len(b.tokens))
    if a.border.tenant != b.border.tenant:
        shorter = min(shorter, a.num_shown, b.num_shown)
    if shorter < SHARED_PREFIX or a.tokens[:SHARED_PREFIX] != b.tokens[:SHARED_PREFIX]:
        return 0
    return next((i for i in range(SHARED_PREFIX, shorter) if a.tokens[i] != b.tokens[i]), shorter)
