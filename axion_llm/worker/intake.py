"""What a request goes through before the engine takes it: its prompt becomes tokens, its grammar is compiled.

A short prompt is done at once. A long one is tokenised beside the steps, in order; grammars have a lane of their own,
so that a slow one holds up nobody else, and so have images, which take seconds to be encoded.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from axion_llm.engine.constraint import Constraint
from axion_llm.engine.engine import Engine
from axion_llm.errors import AxionError, BadRequest, Overloaded
from axion_llm.worker.messages import Accepted, Generate

INLINE_TOKENIZE_CHARS = 8192  # below this tokenising costs about a millisecond at most: no thread for it
GRAMMAR_SECONDS = 10.0  # to compile; the first one of a model also waits for the vocabulary
GRAMMAR_THREADS = 2
IMAGE_NICENESS = 10

Prepared = tuple[list[int], Constraint | None]


@dataclass(eq=False)
class _Waiting:
    request: Generate
    prepared: Future[Prepared]
    began: float = field(default_factory=time.monotonic)
    is_cancelled: bool = False


class Intake:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokenizing: list[_Waiting] = []
        self._compiling: list[_Waiting] = []
        self._seeing: list[_Waiting] = []
        self._tokenizers = ThreadPoolExecutor(1)
        self._encoders = ThreadPoolExecutor(1, initializer=give_way)
        self._compilers = ThreadPoolExecutor(GRAMMAR_THREADS)

    @property
    def waiting(self) -> list[Generate]:
        return [w.request for w in [*self._tokenizing, *self._compiling, *self._seeing]]

    def take(self, request: Generate) -> Accepted | None:
        """Accepted at once, or later by `accepted`. Raises a RequestError."""
        self._engine.queue.check(request, self.waiting)
        if request.images:
            self._seeing.append(_Waiting(request, self._encoders.submit(self._prepare, request)))
        elif request.grammar and not self._engine.grammars.is_known(request.grammar, request.tenant):
            self._compiling.append(_Waiting(request, self._compilers.submit(self._prepare, request)))
        elif len(request.prompt) > INLINE_TOKENIZE_CHARS or self._tokenizing:
            # Behind one that is still being tokenised too: requests keep their order.
            self._tokenizing.append(_Waiting(request, self._tokenizers.submit(self._prepare, request)))
        else:
            return self._engine.add(request, *self._prepare(request))
        return None

    def accepted(self) -> Iterator[tuple[Generate, Callable[[], Accepted | None]]]:
        """Requests that are ready, and a call that hands each to the engine: None when it was cancelled."""
        while self._tokenizing and self._tokenizing[0].prepared.done():
            yield self._ready(self._tokenizing.pop(0))
        for waiting in [w for w in self._seeing if w.prepared.done()]:
            self._seeing.remove(waiting)
            yield self._ready(waiting)
        for waiting in [w for w in self._compiling if w.prepared.done() or _is_late(w)]:
            self._compiling.remove(waiting)
            yield self._ready(waiting)

    def cancel(self, request_id: str) -> None:
        for waiting in [*self._tokenizing, *self._compiling, *self._seeing]:
            waiting.is_cancelled |= waiting.request.request_id == request_id

    def close(self) -> None:
        """Returns when nothing reads the model any more: only then may it be closed."""
        for threads in (self._tokenizers, self._compilers, self._encoders):
            threads.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, request: Generate) -> Prepared:
        return self._engine.tokenize(request), self._engine.compile(request)

    def _ready(self, waiting: _Waiting) -> tuple[Generate, Callable[[], Accepted | None]]:
        def hand_over() -> Accepted | None:
            if waiting.is_cancelled:
                return None
            if not waiting.prepared.done():
                raise _late(waiting)
            return self._engine.add(waiting.request, *waiting.prepared.result())

        return waiting.request, hand_over


def give_way() -> None:
    """This thread, and those that it starts to compute with, get what the others leave of the cores."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IMAGE_NICENESS)


def _is_late(waiting: _Waiting) -> bool:
    return time.monotonic() - waiting.began > GRAMMAR_SECONDS


def _late(waiting: _Waiting) -> AxionError:
    if waiting.prepared.cancel():  # others were before it all the time
        return Overloaded("the model is busy with other requests' grammars; try again later")
    param = waiting.request.grammar.param if waiting.request.grammar else None
    return BadRequest(f"the grammar takes longer than {GRAMMAR_SECONDS:g} s to compile; make it simpler", param=param)
