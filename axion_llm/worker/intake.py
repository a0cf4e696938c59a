"""What a request goes through before the engine takes it: its prompt becomes tokens, its grammar is compiled.

A short prompt is done at once. A long one is tokenised beside the steps, in order; grammars have lanes of their own,
so that slow ones hold up nobody else, and no tenant has all of them; so have images, which take seconds to be encoded.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from axion_llm.engine.constraint import Constraint
from axion_llm.engine.engine import Engine
from axion_llm.errors import Overloaded
from axion_llm.worker.messages import Accepted, Generate

INLINE_TOKENIZE_CHARS = 8192  # below this tokenising costs about a millisecond at most: no thread for it
GRAMMAR_WAIT_SECONDS = 10.0  # for a lane
GRAMMAR_LANES = 4
GRAMMAR_LANES_OF_TENANT = 2
IMAGE_NICENESS = 10

Prepared = tuple[list[int], Constraint | None]


@dataclass(eq=False)
class _Waiting:
    request: Generate
    prepared: Future[Prepared] | None  # None: waits for a lane
    began: float = field(default_factory=time.monotonic)
    is_cancelled: bool = False

    @property
    def is_done(self) -> bool:
        return self.prepared is not None and self.prepared.done()

    @property
    def is_running(self) -> bool:
        return self.prepared is not None and not self.prepared.done()

    @property
    def is_late(self) -> bool:
        """It has had no lane, and waits no longer."""
        return self.prepared is None and (self.is_cancelled or time.monotonic() - self.began > GRAMMAR_WAIT_SECONDS)


class Intake:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokenizing: list[_Waiting] = []
        self._compiling: list[_Waiting] = []
        self._seeing: list[_Waiting] = []
        self._tokenizers = ThreadPoolExecutor(1)
        self._encoders = ThreadPoolExecutor(1, initializer=give_way)
        self._compilers = ThreadPoolExecutor(GRAMMAR_LANES)

    @property
    def waiting(self) -> list[Generate]:
        return [w.request for w in [*self._tokenizing, *self._compiling, *self._seeing]]

    def take(self, request: Generate) -> Accepted | None:
        """Accepted at once, or later by `accepted`. Raises a RequestError."""
        self._engine.queue.check(request, self.waiting)
        if request.images:
            self._seeing.append(_Waiting(request, self._encoders.submit(self._prepare, request)))
        elif request.grammar and not self._engine.grammars.is_known(request.grammar, request.tenant):
            self._compiling.append(_Waiting(request, None))
            self._start_compiling()
        elif len(request.prompt) > INLINE_TOKENIZE_CHARS or self._tokenizing:
            # Behind one that is still being tokenised too: requests keep their order.
            self._tokenizing.append(_Waiting(request, self._tokenizers.submit(self._prepare, request)))
        else:
            return self._engine.add(request, *self._prepare(request))
        return None

    def accepted(self) -> Iterator[tuple[Generate, Callable[[], Accepted | None]]]:
        """Requests that are ready, and a call that hands each to the engine: None when it was cancelled."""
        self._start_compiling()
        while self._tokenizing and self._tokenizing[0].is_done:
            yield self._ready(self._tokenizing.pop(0))
        for waiting in [w for w in self._seeing if w.is_done]:
            self._seeing.remove(waiting)
            yield self._ready(waiting)
        for waiting in [w for w in self._compiling if w.is_done or w.is_late]:
            self._compiling.remove(waiting)
            yield self._ready(waiting)

    def cancel(self, request_id: str) -> None:
        for waiting in [*self._tokenizing, *self._compiling, *self._seeing]:
            waiting.is_cancelled |= waiting.request.request_id == request_id

    def close(self) -> None:
        """Returns when nothing reads the model any more: only then may it be closed."""
        for threads in (self._tokenizers, self._compilers, self._encoders):
            threads.shutdown(wait=True, cancel_futures=True)

    def _start_compiling(self) -> None:
        """In order, but for those whose tenant has its share of the lanes."""
        running = Counter(w.request.tenant for w in self._compiling if w.is_running)
        for waiting in self._compiling:
            tenant = waiting.request.tenant
            if running.total() >= GRAMMAR_LANES:
                return
            if waiting.prepared is None and not waiting.is_cancelled and running[tenant] < GRAMMAR_LANES_OF_TENANT:
                waiting.prepared = self._compilers.submit(self._prepare, waiting.request, waiting)
                running[tenant] += 1

    def _prepare(self, request: Generate, waiting: _Waiting | None = None) -> Prepared:
        def is_wanted() -> bool:
            return waiting is None or not waiting.is_cancelled

        return self._engine.tokenize(request), self._engine.compile(request, is_wanted)

    def _ready(self, waiting: _Waiting) -> tuple[Generate, Callable[[], Accepted | None]]:
        def hand_over() -> Accepted | None:
            if waiting.is_cancelled:
                return None
            if waiting.prepared is None:
                raise Overloaded("the model is busy with other requests' grammars; try again later")
            return self._engine.add(waiting.request, *waiting.prepared.result())

        return waiting.request, hand_over


def give_way() -> None:
    """This thread, and those that it starts to compute with, get what the others leave of the cores."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IMAGE_NICENESS)
