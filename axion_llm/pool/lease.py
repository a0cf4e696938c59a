"""A model for the length of one request: when its process ends under the request, the next one goes on with it.

That can be done in the middle of a text, since equal requests give equal texts, bit by bit: the next process computes
the text again, and what the client already has is left out. A request that says no seed gets one here for that reason.

A request whose process ended under it may be what ended it: it is tried alone first (see quarantine.py).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import msgspec

from axion_llm.errors import Quarantined, Suspended, WorkerDied
from axion_llm.pool.interface import ModelWorker
from axion_llm.pool.quarantine import Case, Quarantine
from axion_llm.worker.messages import (
    Accepted,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    EngineStats,
    Event,
    Finished,
    Generate,
    Loaded,
    Piece,
    Question,
    Tokenize,
    Tokenized,
    TokenLogprob,
    encode,
)

T = TypeVar("T")

MAX_CRASHES = 4  # of workers under one request that does not kill them alone
TRIAL_TOKENS = 4  # further than where its process died, and a request on trial is acquitted

_log = logging.getLogger(__name__)


class Lease:
    """A `RunningModel`. `acquire` gives the model's worker, loaded when it is not, and raises what that raises."""

    def __init__(
        self,
        name: str,
        acquire: Callable[[], Awaitable[ModelWorker]],
        on_change: Callable[[], None] = lambda: None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.name = name
        self.worker: ModelWorker | None = None  # None while it waits for one
        self._acquire = acquire
        self._on_change = on_change  # of the worker
        self._quarantine = quarantine or Quarantine()  # all leases of a model share one

    async def renew(self) -> ModelWorker:
        """A worker to go on with; requests of one lease that lose theirs together share the next."""
        self.worker = None
        worker = await self._acquire()
        self.worker = worker
        self._on_change()
        return worker

    @property
    def info(self) -> Loaded:
        assert self.worker is not None
        return self.worker.info

    async def stats(self) -> EngineStats:
        return await self._usable().stats()

    async def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        """See `RunningModel.generate`."""
        case, sent = Case(_fingerprint(request)), Sent()
        if request.sampling.seed is None and request.sampling.temperature > 0:
            sampling = msgspec.structs.replace(request.sampling, seed=secrets.randbits(31))
            request = msgspec.structs.replace(request, sampling=sampling)
        for number in itertools.count(1):
            # A new id for each try: what comes late of one before is not taken for the new one's.
            again = request if number == 1 else _renumbered(request, number)
            async with self._quarantine.place(case):
                try:
                    async with aclosing(self._try(again, case, sent)) as events:
                        async for event in events:
                            yield event
                            if isinstance(event, Finished):
                                return
                except (WorkerDied, Suspended) as error:
                    self._go_on_elsewhere(request.request_id, case, sent.num_tokens, error)
            sent.start_again()

    async def _try(self, request: Generate, case: Case, sent: Sent) -> AsyncGenerator[Event, None]:
        """What is new of the answer; ends early when it has stood its trial and others wait for theirs."""
        quarantine, end_of_trial = self._quarantine, sent.num_tokens + TRIAL_TOKENS
        worker = await self._any_worker()
        async with aclosing(worker.generate(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    quarantine.note_finished()
                if (new := sent.unsent(event)) is not None:
                    yield new
                if case.is_suspect and sent.num_tokens >= end_of_trial:
                    if quarantine.is_awaited:
                        case.is_suspect = False
                        return
                    quarantine.acquit(case)

    async def _any_worker(self) -> ModelWorker:
        return self.worker if self.worker and self.worker.is_alive else await self.renew()

    def _go_on_elsewhere(self, request_id: str, case: Case, num_tokens: int, error: Exception) -> None:
        """Raises what ends the request."""
        if isinstance(error, Suspended):
            _log.info("%s: request %s waits for the model's next turn", self.name, request_id)
            return
        if isinstance(error, Different | Quarantined):
            raise error
        was_on_trial = self._quarantine.is_on_trial(case)
        self._quarantine.suspect(case, num_tokens, self.worker.pid if self.worker else None)
        if was_on_trial:
            self._quarantine.convict(case)
            _log.error("%s: request %s ends the process, also alone; it is not run again", self.name, request_id)
            raise Quarantined(f"{error}\nthis request ends the model's process, also when it runs alone") from error
        if len(case.pids) == MAX_CRASHES:
            raise error
        _log.warning("%s: request %s goes on with another process: %s", self.name, request_id, error)

    async def embed(self, request: Embed) -> Embedded:
        return await self._ask(request, lambda worker: worker.embed(request))

    async def tokenize(self, request: Tokenize) -> Tokenized:
        return await self._ask(request, lambda worker: worker.tokenize(request))

    async def detokenize(self, request: Detokenize) -> Detokenized:
        return await self._ask(request, lambda worker: worker.detokenize(request))

    async def _ask(self, request: Question, ask: Callable[[ModelWorker], Awaitable[T]]) -> T:
        """A question has one reply, so the next process is simply asked again."""
        case = Case(_fingerprint(request))
        while True:
            async with self._quarantine.place(case):
                try:
                    reply = await ask(await self._any_worker())
                    self._quarantine.note_finished()
                    return reply
                except (WorkerDied, Suspended) as error:
                    self._go_on_elsewhere(request.request_id, case, 0, error)

    def _usable(self) -> ModelWorker:
        assert self.worker is not None
        return self.worker


class Different(WorkerDied):
    """What one process has begun, the next one does not go on with."""


def _fingerprint(request: Generate | Question) -> bytes:
    """The same for whatever asks for the same."""
    return hashlib.sha256(encode(msgspec.structs.replace(request, request_id=""))).digest()


def _renumbered(request: Generate, number: int) -> Generate:
    return msgspec.structs.replace(request, request_id=f"{request.request_id}~{number}")


class Sent:
    """What the client of a request has, to tell what is new when the request is computed once more."""

    def __init__(self) -> None:
        self._is_accepted = False
        self._pieces: list[str] = []
        self.num_tokens = 0
        self._num_logprobs = 0
        # What the worker of now has still to say again:
        self._text = ""
        self._tokens = 0
        self._logprobs = 0

    def start_again(self) -> None:
        self._pieces = ["".join(self._pieces)]
        self._text, self._tokens, self._logprobs = self._pieces[0], self.num_tokens, self._num_logprobs

    def unsent(self, event: Event) -> Event | None:
        """The event without what the client has; None when nothing is left. Raises WorkerDied if the text differs."""
        if type(event) is Piece:
            if not (self._text or self._tokens or self._logprobs):  # as nearly always
                self._note(event.text, event.num_tokens, event.logprobs)
                return event
            return self._new_piece(event)
        if type(event) is Finished:
            return msgspec.structs.replace(event, text=self._new_text(event.text), logprobs=self._new(event.logprobs))
        if type(event) is Accepted:
            if self._is_accepted:
                return None
            self._is_accepted = True
        return event

    def _note(self, text: str, num_tokens: int, logprobs: list[TokenLogprob]) -> None:
        self._pieces.append(text)
        self.num_tokens += num_tokens
        self._num_logprobs += len(logprobs)

    def _new_piece(self, event: Piece) -> Piece | None:
        text, logprobs = self._new_text(event.text), self._new(event.logprobs)
        num_tokens = max(0, event.num_tokens - self._tokens)
        self._tokens -= event.num_tokens - num_tokens
        self._note(text, num_tokens, logprobs)
        if not (text or logprobs or num_tokens):
            return None
        return msgspec.structs.replace(event, text=text, num_tokens=num_tokens, logprobs=logprobs)

    def _new_text(self, text: str) -> str:
        again = self._text[: len(text)]
        if not text.startswith(again):
            raise Different("the model's process ended, and the next one says something else: was its file changed?")
        self._text = self._text[len(again) :]
        return text[len(again) :]

    def _new(self, logprobs: list[TokenLogprob]) -> list[TokenLogprob]:
        again = min(self._logprobs, len(logprobs))
        self._logprobs -= again
        return logprobs[again:]
