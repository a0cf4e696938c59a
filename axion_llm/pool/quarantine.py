"""Who may share a model's process: a request that was in one when it died first shows alone that it was not the cause.

    a request     runs                                                         then
    unsuspected   with others; waits while suspects do                         its process dies under it: suspect
    suspect       alone, one after the other, the one with the least first     gets further than when it died: acquitted
                                                                               the process dies again: convicted
    convicted     not at all: an error, also when it is sent again for a time  all other suspects are acquitted

Most processes that die do so at the begin of what kills them, so the first trial often settles it for all. The breaker
hears of a conviction: the crashes were the request's and not the model's, unless the model has convicted one after
the other and finished nothing between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from axion_llm.errors import Quarantined

CONVICTED_SECONDS = 600.0  # the same request is not run again
MAX_CONVICTED = 1000


@dataclass(eq=False)
class Case:
    """One request."""

    fingerprint: bytes  # of all that it asks for
    is_suspect: bool = False
    num_tokens: int = 0  # that it had got when its process died
    pids: list[int | None] = field(default_factory=list)  # of processes that died under it


class Quarantine:
    """Of one model. `on_conviction` is told the processes that a convicted request has ended."""

    def __init__(self, on_conviction: Callable[[list[int | None]], None] = lambda _: None) -> None:
        self._on_conviction = on_conviction
        self._suspects: list[Case] = []  # that wait for their trial
        self._on_trial: Case | None = None
        self._num_running = 0  # beside it
        self._convicted: dict[bytes, float] = {}
        self._num_in_a_row = 0  # convictions with nothing finished between them
        self._changed: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def place(self, case: Case) -> AsyncIterator[None]:
        """In the process, for as long as the body runs. Raises Quarantined for what was convicted lately."""
        await self._enter(case)
        try:
            yield
        finally:
            if self._on_trial is case:
                self._on_trial = None
            else:
                self._num_running -= 1
            self._notify()

    @property
    def is_awaited(self) -> bool:
        """Whether others have to be tried."""
        return bool(self._suspects)

    def suspect(self, case: Case, num_tokens: int, pid: int | None) -> None:
        """The process has died under it."""
        case.is_suspect, case.num_tokens = True, num_tokens
        case.pids.append(pid)

    def is_on_trial(self, case: Case) -> bool:
        return self._on_trial is case

    def acquit(self, case: Case) -> None:
        """On trial, it got further than when its process died: it goes on as one of those that share the process."""
        case.is_suspect = False
        if self._on_trial is case:
            self._on_trial = None
            self._num_running += 1
            self._notify()

    def convict(self, case: Case) -> None:
        """On trial, alone, it has ended another process."""
        now = time.monotonic()
        self._convicted = {f: at for f, at in self._convicted.items() if now - at < CONVICTED_SECONDS}
        while len(self._convicted) >= MAX_CONVICTED:
            del self._convicted[next(iter(self._convicted))]
        self._convicted[case.fingerprint] = now
        for other in self._suspects:
            other.is_suspect = False
        self._suspects.clear()
        self._num_in_a_row += 1
        if self._num_in_a_row == 1:
            self._on_conviction(case.pids)
        self._notify()

    def note_finished(self) -> None:
        """The model answers, so what it could not answer was special."""
        self._num_in_a_row = 0

    async def _enter(self, case: Case) -> None:
        at = self._convicted.get(case.fingerprint)
        if at is not None and time.monotonic() - at < CONVICTED_SECONDS:
            raise Quarantined("a request like this has ended the model's process twice; it is not run again for now")
        if case.is_suspect:
            self._suspects.append(case)
        try:
            while not self._may_enter(case):
                await self._change()
        finally:
            if case in self._suspects:
                self._suspects.remove(case)
                self._notify()
        if case.is_suspect:
            self._on_trial = case
        else:
            self._num_running += 1

    def _may_enter(self, case: Case) -> bool:
        if self._on_trial is not None:
            return False
        if case.is_suspect:
            return not self._num_running and case is min(self._suspects, key=lambda c: c.num_tokens)
        return not self._suspects

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None
