"""One request between a client and the pool: its events, and whatever ends it early.

    producer    leases the model, runs one generator for each choice, puts their events into the mailbox
    watcher     waits for the client to go away
    reader      the answer: takes all that is in the mailbox at once; the only one that waits for the mailbox

What ends the request early (an error of the pool, the client, the service stopping) is put beside the mailbox
as an exception; the reader raises it, and leaving the exchange cancels the producer, so its generators close.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from types import TracebackType

from starlette.types import Receive

from axion_llm.errors import ServiceError
from axion_llm.pool.interface import ModelPool, RunningModel
from axion_llm.servers.access import Record
from axion_llm.servers.aside import aside
from axion_llm.servers.drain import Drain
from axion_llm.worker.messages import Accepted, Event, Finished, Generate, Loaded, Piece

KEEP_ALIVE_SECONDS = 15.0
MAX_UNSENT_EVENTS = 4096  # that a client may leave unread, beside what the sockets' buffers hold
_GENERATOR_END_SECONDS = 1.0  # from its Finished to its own end

Prepare = Callable[[Loaded], list[Generate]]


class ClientGone(Exception):
    """Nobody is left to answer."""


class ClientStalled(Exception):
    """It has stopped reading its stream."""


class Exchange:
    """Use as a context: start(), then accepted(), then take() until each choice has got its Finished."""

    def __init__(self, pool: ModelPool, drain: Drain, record: Record, num_prompts: int, n: int) -> None:
        self._pool = pool
        self._drain = drain
        self._record = record
        self._num_choices = num_prompts * n
        self._choices_per_prompt = n
        self._num_shown = [0] * self._num_choices
        self._shown_at = [0.0] * self._num_choices  # the last piece
        self._num_accepted = 0
        self._num_finished = 0
        self._items: list[tuple[int, Event]] = []
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._last_put = 0.0
        self._keep_alive: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []  # producer, watcher
        self._reader = asyncio.current_task()

    def start(self, model: str, prepare: Prepare, receive: Receive) -> None:
        self._drain.enter(self)
        self._tasks = [
            asyncio.create_task(self._produce(model, prepare)),
            asyncio.create_task(self._watch(receive)),
        ]

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if self._keep_alive is not None:
                self._keep_alive.cancel()
            if self._tasks and self.is_finished:  # no Cancel for a generator that is ending by itself
                await asyncio.wait(self._tasks[:1], timeout=_GENERATOR_END_SECONDS)
            await _end(self._tasks)
        finally:
            self._drain.leave(self)

    # ---- the reader's side

    @property
    def is_stalled(self) -> bool:
        return isinstance(self._error, ClientStalled)

    @property
    def is_finished(self) -> bool:
        return self._num_finished == self._num_choices

    async def accepted(self) -> None:
        """Returns when all choices are accepted; until then an error can still be a plain HTTP status."""
        while self._num_accepted < self._num_choices:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def take(self) -> list[tuple[int, Event]]:
        """All that has come since the last call, at least one; none after a silence (see keep_alive)."""
        if not self._items:
            if self._error is None:
                await self._wait()
            if self._error is not None and not self._items:
                raise self._error
        items, self._items = self._items, []
        return items

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def keep_alive(self, interval_seconds: float) -> None:
        """From now on `take` returns with nothing when nothing has come for that long."""
        # One timer that looks now and then: one set anew for each token would cost more than the token.
        loop = asyncio.get_running_loop()
        self._last_put = loop.time()

        def look() -> None:
            remaining = self._last_put + interval_seconds - loop.time()
            if remaining <= 0:
                self._last_put, remaining = loop.time(), interval_seconds
                self._wake()
            self._keep_alive = loop.call_later(remaining, look)

        self._keep_alive = loop.call_later(interval_seconds, look)

    # ---- the other side

    def fail(self, error: BaseException) -> None:
        """The first error counts; after the last event there is nothing left to fail."""
        if self._error is None and not self.is_finished:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _put(self, index: int, event: Event) -> None:
        if type(event) is Piece:  # as nearly all are
            self._num_shown[index] += event.num_tokens
            self._count_output(index, event.num_tokens)
        elif type(event) is Finished:
            self._num_finished += 1
            self._count_output(index, event.completion_tokens - self._num_shown[index])
            self._count_prompt(index, cached=event.cached_tokens)
            self._record.finish = event.reason
            if index == 0:
                times = {"queue": event.queue_ms, "prefill": event.prefill_ms, "decode": event.decode_ms}
                self._record.note_stations(**times)
        elif type(event) is Accepted:
            self._num_accepted += 1
            self._count_prompt(index, read=event.prompt_tokens)
            return self._wake()
        self._last_put = time.monotonic()  # the event loop's clock
        self._items.append((index, event))
        if self._record.transcript:
            self._record.transcript.add(index, event)
        if len(self._items) > MAX_UNSENT_EVENTS and self._error is None:
            self._stall()
        self._wake()

    def _stall(self) -> None:
        """The reader hangs in a send that the client does not take: nothing but a cancel reaches it there."""
        self.fail(ClientStalled())
        if self._waiter is None or self._waiter.done():
            assert self._reader is not None
            self._reader.cancel()

    def _count_output(self, index: int, num_tokens: int) -> None:
        self._record.count_output(num_tokens)
        meter = self._record.meter
        if num_tokens and meter:
            now, before = time.monotonic(), self._shown_at[index]
            if before:
                meter.gaps.observe(now - before)
            self._shown_at[index] = now
            meter.rate.add(num_tokens, now)

    def _count_prompt(self, index: int, *, read: int = 0, cached: int = 0) -> None:
        if index % self._choices_per_prompt == 0:  # a prompt counts once, however many choices continue it
            self._record.count_prompt(read)
            self._record.cached += cached

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.fail(ClientGone())

    async def _produce(self, model: str, prepare: Prepare) -> None:
        try:
            async with self._pool.lease(model) as running:
                self._record.meter = self._record.telemetry.meter(model)
                await self._run_all(running, await aside(self._record, prepare, running.info))
            self.fail(ServiceError("the model ended the request without a word"))
        except Exception as exc:
            self.fail(exc)

    async def _run_all(self, running: RunningModel, requests: list[Generate]) -> None:
        if len(requests) == 1:
            return await self._run(running, 0, requests[0])
        tasks = [asyncio.create_task(self._run(running, i, r)) for i, r in enumerate(requests)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)

    async def _run(self, running: RunningModel, index: int, request: Generate) -> None:
        if self._record.transcript:
            self._record.transcript.prompt(index, request.prompt)
        async with aclosing(running.generate(request)) as events:
            async for event in events:
                self._put(index, event)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
