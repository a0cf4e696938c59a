"""Runs the attempts against the pool: one lease for all samples of an expert, as many experts at a time as is told.

What happens is put into one queue, in order. Whatever an expert does (fails, hangs, says nothing, never ends), its
attempt ends exactly once, with a status; nothing is raised.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

from axion_llm.consensus.attempt import Attempt, Status
from axion_llm.consensus.ballot import Ballot
from axion_llm.consensus.happenings import Ended, Started, Wrote
from axion_llm.errors import AxionError, DeadlineExceeded, ServiceError
from axion_llm.pool.interface import ModelPool, RunningModel
from axion_llm.worker.messages import Accepted, Event, Finished, Generate, Loaded, Piece

CLOSE_SECONDS = 0.5  # for generators to end; a Cancel is sent at once, nobody waits for its echo

Prepare = Callable[[str, Sequence[Attempt], Loaded], list[Generate]]
Extract = Callable[[str], Ballot | None]
Progress = Started | Wrote | Ended

_log = logging.getLogger(__name__)


class Crew:
    """`prepare` makes the worker's requests, one for each attempt; `limit_is_ours`: a cut answer says nothing."""

    def __init__(
        self,
        pool: ModelPool,
        attempts: Sequence[Attempt],
        prepare: Prepare,
        extract: Extract,
        *,
        concurrency: int,
        limit_is_ours: bool,
        is_large: bool,
        began: float,
    ) -> None:
        self._pool = pool
        self._attempts = attempts
        self._prepare = prepare
        self._extract = extract
        self._limit_is_ours = limit_is_ours
        self._is_large = is_large
        self._began = began
        self._gate = asyncio.Semaphore(concurrency)
        self._queue: asyncio.Queue[Progress] = asyncio.Queue()
        self._groups: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def now(self) -> float:
        """Seconds since the request began."""
        return time.monotonic() - self._began

    def start(self, stage: int) -> None:
        """Whatever belongs to this stage or an earlier one and has not been started."""
        for attempt in self._attempts:
            key = (attempt.stage, attempt.expert)
            if attempt.stage <= stage and key not in self._groups:
                group = [a for a in self._attempts if (a.stage, a.expert) == key]
                self._groups[key] = asyncio.create_task(self._run_group(attempt.expert, group))

    @property
    def has_news(self) -> bool:
        return not self._queue.empty()

    async def next(self, timeout_seconds: float) -> Progress | None:
        """The next thing that has happened; None when it takes too long."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            return await asyncio.wait_for(self._queue.get(), max(timeout_seconds, 0.0))
        except asyncio.TimeoutError:
            return None

    def end(self, attempt: Attempt, status: Status, error: AxionError | None = None) -> None:
        """For good, whatever it is doing; its sequence is cancelled in the worker."""
        if not attempt.is_live:
            return
        attempt.status, attempt.error = status, error
        attempt.ended = self.now()
        self._queue.put_nowait(Ended(attempt, {}))
        if task := self._tasks.get(attempt.index):
            task.cancel()
        key = (attempt.stage, attempt.expert)
        members = [a for a in self._attempts if (a.stage, a.expert) == key]
        has_begun = any(a.index in self._tasks for a in members)
        if key in self._groups and not has_begun and not any(a.is_live for a in members):
            self._groups[key].cancel()  # it still waits for its turn or its model

    def end_late(self, attempt: Attempt) -> None:
        seconds = self.now() - (attempt.asked or 0.0)
        what = "no first token" if attempt.first_token is None else "no end"
        error = DeadlineExceeded(f"{attempt.expert}: {what} after {seconds:.1f} s")
        self.end(attempt, "timeout", error)

    async def close(self) -> None:
        """Cancel what is left. Does not wait for a worker that hangs."""
        for attempt in self._attempts:
            self.end(attempt, "cancelled")
        tasks = [*self._groups.values(), *self._tasks.values()]
        for group in self._groups.values():
            group.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)

    # ---- inside

    async def _run_group(self, expert: str, group: list[Attempt]) -> None:
        async with self._gate:
            for attempt in group:
                attempt.asked = self.now()
            try:
                async with self._pool.lease(expert) as model:
                    live = [a for a in group if a.is_live]
                    requests = await self._requests(expert, live, model.info)
                    running = [(a, r) for a, r in zip(live, requests, strict=True) if a.is_live]
                    for attempt, request in running:
                        self._tasks[attempt.index] = asyncio.create_task(self._run(model, attempt, request))
                    await asyncio.gather(*(self._tasks[a.index] for a, _ in running), return_exceptions=True)
            except AxionError as exc:
                self._fail(group, exc)
            except Exception:
                _log.exception("%s: unexpected error", expert)
                self._fail(group, ServiceError(f"{expert}: internal error"))

    async def _requests(self, expert: str, attempts: Sequence[Attempt], info: Loaded) -> list[Generate]:
        if self._is_large:  # Python at work for long: not in the event loop, which the streams need
            return await asyncio.to_thread(self._prepare, expert, attempts, info)
        return self._prepare(expert, attempts, info)

    async def _run(self, model: RunningModel, attempt: Attempt, request: Generate) -> None:
        attempt.started, attempt.status = self.now(), "running"
        try:
            async with aclosing(model.generate(request)) as events:
                async for event in events:
                    self._note(attempt, event)
            self._fail([attempt], ServiceError(f"{attempt.expert} ended without a word"))
        except AxionError as exc:
            self._fail([attempt], exc)
        except Exception:
            _log.exception("%s: unexpected error", attempt.expert)
            self._fail([attempt], ServiceError(f"{attempt.expert}: internal error"))

    def _fail(self, attempts: Sequence[Attempt], error: AxionError) -> None:
        for attempt in attempts:
            if attempt.is_live:
                attempt.status, attempt.error, attempt.ended = "failed", error, self.now()
                self._queue.put_nowait(Ended(attempt, {}))

    def _note(self, attempt: Attempt, event: Event) -> None:
        if not attempt.is_live:
            return
        if isinstance(event, Accepted):
            attempt.prompt_tokens = event.prompt_tokens
            self._queue.put_nowait(Started(attempt))
        elif isinstance(event, Piece):
            attempt.completion_tokens += event.num_tokens
            self._add(attempt, event.text)
        elif isinstance(event, Finished):
            self._add(attempt, event.text)
            self._finish(attempt, event)

    def _add(self, attempt: Attempt, text: str) -> None:
        if attempt.first_token is None:
            attempt.first_token = self.now()
        if text:
            attempt.texts.append(text)
            self._queue.put_nowait(Wrote(attempt, text))

    def _finish(self, attempt: Attempt, event: Finished) -> None:
        attempt.completion_tokens, attempt.cached_tokens = event.completion_tokens, event.cached_tokens
        attempt.prompt_tokens, attempt.finish_reason = event.prompt_tokens, event.reason
        attempt.ended = self.now()
        attempt.status = self._status(attempt, event)
        if attempt.status == "blank":
            attempt.error = ServiceError(f"{attempt.expert} said nothing")
        elif attempt.status == "failed":
            attempt.error = ServiceError(f"{attempt.expert} was cancelled inside the server")
        else:
            attempt.ballot = self._extract(attempt.text)
        self._queue.put_nowait(Ended(attempt, {}))

    def _status(self, attempt: Attempt, event: Finished) -> Status:
        if event.reason == "cancelled":
            return "failed"
        if not attempt.text.strip():
            return "blank"
        return "cut" if event.reason == "length" and self._limit_is_ours else "ok"
