"""Output that follows a grammar: what one sequence may say next, and the token masks of a step.

The grammar engine is llguidance. A mask has a bit for each token of the vocabulary. Masks are computed in a thread
beside llama_decode (the call gives up the GIL), for the guesses of speculation too. What a grammar leaves no choice
about is not drawn: it is appended as it stands, and the next step computes it at once; beside other streams only as
much of it as does not hold them up (pacing).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from llguidance import LLExecutor, LLMatcher, LLTokenizer

from axion_llm.engine.drafting import Drafter
from axion_llm.errors import BadRequest

Bits = npt.NDArray[np.uint8]  # [ceil(n_vocab / 8)], the lowest bit first; 1: may come next


class Constraint:
    """The state of a sequence's grammar. With a `trigger` it begins behind that text, once the model has written it."""

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer, trigger: str | None = None) -> None:
        self.matcher = matcher
        self._tokenizer = tokenizer
        self._trigger = (trigger or "").encode()
        self._tail = b""  # of the text so far, while the trigger is looked for
        self.is_active = not trigger

    @property
    def is_complete(self) -> bool:
        """Nothing may follow."""
        return self.is_active and self.matcher.is_stopped()

    def accept(self, token: int, piece: bytes) -> None:
        """`token` was said. Raises BadRequest when the grammar has become too much to follow."""
        if not self.is_active:
            self._look_for_trigger(piece)
        elif not self.matcher.consume_token(token):
            raise too_complex(self.matcher)

    def _look_for_trigger(self, piece: bytes) -> None:
        self._tail += piece
        _, found, rest = self._tail.partition(self._trigger)
        self._tail = self._tail[-len(self._trigger) :]
        if not found:
            return
        # Its bytes are what counts: they need not be the tokens that the model has used.
        tokens = self._tokenizer.tokenize_bytes(rest)
        if self.matcher.validate_tokens(tokens) == len(tokens):
            self.is_active = self.matcher.consume_tokens(tokens)

    def num_valid(self, tokens: list[int]) -> int:
        """How many of the guessed tokens, from the first, the grammar allows."""
        return self.matcher.validate_tokens(tokens) if self.is_active else 0

    def forced(self) -> list[int]:
        """Tokens that have to come next, as the tokenizer would cut them."""
        tokens = self.matcher.compute_ff_tokens() if self.is_active else []
        return tokens[: self.matcher.validate_tokens(tokens)] if tokens else []


class ConstrainedDrafter(Drafter):
    """Guesses only what the grammar allows."""

    def __init__(self, constraint: Constraint) -> None:
        super().__init__()
        self._constraint = constraint

    def propose(self, most: int) -> list[int]:
        tokens = super().propose(most)
        return tokens[: self._constraint.num_valid(tokens)] if tokens else []


_Job = tuple[LLMatcher, int, list[int]]  # grammar, first row, guesses


class Masks:
    """Of one step at a time; rows are those of the step's logits."""

    def __init__(self, n_vocab: int) -> None:
        self._num_bytes = (n_vocab + 31) // 32 * 4
        self._bits = np.zeros((0, self._num_bytes), np.uint8)
        self._jobs: list[_Job] = []
        self._executor: LLExecutor | None = None
        self._thread = ThreadPoolExecutor(max_workers=1)
        self.num_masks = 0
        self.seconds = 0.0  # of the thread
        self.faults: dict[int, Exception] = {}  # by row, of those that could not be computed

    def clear(self) -> None:
        self._jobs.clear()
        self.faults.clear()

    def want(self, constraint: Constraint, row: int, draft: list[int]) -> None:
        """A mask for `row`, and one behind each guess."""
        self._jobs.append((constraint.matcher, row, draft))

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Computes the masks that are wanted while the body runs; they are there at its end."""
        done = self._thread.submit(self._fill) if self._jobs else None
        try:
            yield
        finally:
            if done:
                self._wait(done)

    def _wait(self, done: Future[float]) -> None:
        self.seconds += done.result()
        self.num_masks += sum(1 + len(draft) for _, _, draft in self._jobs)

    def _fill(self) -> float:
        started = time.perf_counter()
        num_rows = max(row + 1 + len(draft) for _, row, draft in self._jobs)
        if num_rows > len(self._bits):
            self._bits = np.zeros((num_rows, self._num_bytes), np.uint8)
        executor = self._executor = self._executor or LLExecutor(1)
        place = (self._bits.ctypes.data, self._num_bytes, len(self._bits))
        try:
            _compute(executor, self._jobs, place)
        except Exception:  # of one of them: which, and the others' masks all the same
            for job in self._jobs:
                try:
                    _compute(executor, [job], place)
                except Exception as error:
                    self.faults |= dict.fromkeys(range(job[1], job[1] + 1 + len(job[2])), error)
        return time.perf_counter() - started

    def row(self, row: int) -> Bits:
        """Raises what went wrong with it."""
        if row in self.faults:
            raise self.faults[row]
        bits: Bits = self._bits[row]
        return bits


def _compute(executor: LLExecutor, jobs: list[_Job], place: tuple[int, int, int]) -> None:
    if guessed := [job for job in jobs if job[2]]:
        executor.unsafe_compute_mask_ptr_with_draft_token(guessed, *place)
    if plain := [(matcher, row) for matcher, row, draft in jobs if not draft]:
        executor.unsafe_compute_mask_ptr(plain, *place)


def is_allowed(bits: Bits, token: int) -> bool:
    return bool(bits[token >> 3] >> (token & 7) & 1)


def allowed(bits: Bits, n_vocab: int) -> npt.NDArray[np.bool_]:
    """[n_vocab]"""
    return np.unpackbits(bits, count=n_vocab, bitorder="little").view(np.bool_)


def too_complex(matcher: LLMatcher) -> BadRequest:
    reason = first_line(matcher.get_error())
    return BadRequest(f"the grammar cannot be followed any further: {reason}", param="response_format")


def first_line(message: str) -> str:
    """llguidance adds the whole state of its parser; of a regular expression's error the reason is further down."""
    lines = message.strip().split("\n") or [""]
    reason = next((line for line in lines[1:] if line.startswith("error:")), "")
    return f"{lines[0][:300]} {reason[:200]}".strip()
