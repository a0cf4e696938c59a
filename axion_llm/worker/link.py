"""Messages to and from one worker process: questions with one reply, requests with a stream of events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import zmq
import zmq.asyncio

from axion_llm.errors import AxionError, EngineError, from_wire
from axion_llm.worker.messages import (
    Accepted,
    Batch,
    Cancel,
    Detokenized,
    Embedded,
    EngineStats,
    Event,
    Failed,
    FromWorker,
    Generate,
    Hello,
    Loaded,
    LoadFailed,
    LoadProgress,
    Piece,
    Pong,
    Question,
    Reply,
    Tokenized,
    ToWorker,
    decode_from_worker,
    encode,
)

MAX_WAITING_EVENTS = 1024  # more than these unread ...
MAX_UNREAD_SECONDS = 30.0  # ... and none read for so long: the request is cancelled

_log = logging.getLogger(__name__)


class Stream:
    """The events of one request between the link and its consumer."""

    __slots__ = ("events", "has_ended", "is_cancelled", "read_at")

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | Reply] = asyncio.Queue()
        self.has_ended = False  # its last event is in the queue
        self.is_cancelled = False
        self.read_at = time.monotonic()

    def put(self, event: Event | Reply) -> None:
        if type(event) is not Piece and type(event) is not Accepted:
            self.has_ended = True
        self.events.put_nowait(event)

    async def get(self) -> Event | Reply:
        event = await self.events.get()
        self.read_at = time.monotonic()
        return event

    def is_abandoned(self) -> bool:
        return (
            self.events.qsize() > MAX_WAITING_EVENTS
            and not self.has_ended
            and not self.is_cancelled
            and time.monotonic() - self.read_at > MAX_UNREAD_SECONDS
        )


class Link:
    """Binds `endpoint` for one worker. Sending never waits, so a task that is being cancelled can still send.

    A Batch carries all events of an engine step, and the cores belong to the engine: `dispatch` spends
    microseconds on an event.
    """

    def __init__(self, endpoint: str) -> None:
        self.name = "worker"  # the model's, once there is one
        self.on_progress: Callable[[float], None] | None = None
        self.last_stats = EngineStats()  # that came with a Pong
        self._streams: dict[str, Stream] = {}
        self._replies: dict[Hashable, asyncio.Future[Any]] = {}
        self._socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):  # a full pipe must block neither side
            self._socket.setsockopt(option, 0)
        self._socket.bind(endpoint)

    def send(self, message: ToWorker) -> None:
        """Only a peer that is gone takes no message, and then its end will soon reach everyone who waits."""
        if not self._socket.closed:
            sent: Awaitable[Any] = self._socket.send(encode(message), zmq.NOBLOCK)
            assert isinstance(sent, asyncio.Future) and sent.done()
            sent.exception()

    async def read(self) -> None:
        """Dispatch what comes, for ever; raises when it is no message of ours."""
        while True:
            self.dispatch(decode_from_worker(await self._socket.recv()))

    def close(self) -> None:
        self._socket.close()

    def dispatch(self, message: FromWorker) -> None:
        match message:
            case Batch(events=events):
                for event in events:
                    self._deliver(event)
            case Embedded() | Tokenized() | Detokenized():
                self._deliver(message)
            case Pong(nonce=nonce, stats=stats):
                self.last_stats = stats
                self._reply(nonce, stats)
            case LoadProgress(fraction=fraction):
                if self.on_progress:
                    self.on_progress(fraction)
            case Hello():
                self._reply("hello", message)
            case Loaded():
                self._reply("load", message)
            case LoadFailed(code=code, message=text):
                self._reply("load", from_wire(code, text))

    # ---- questions

    async def ask(self, key: Hashable, message: ToWorker | None, timeout_seconds: float) -> Any:
        """The reply; None when it takes too long. An error that comes in its place is raised."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[key] = reply
        if message is not None:
            self.send(message)
        try:
            await asyncio.wait({reply}, timeout=timeout_seconds)
        finally:
            self._replies.pop(key, None)
        answer = reply.result() if reply.done() else None
        if isinstance(answer, AxionError):
            raise answer
        return answer

    def _reply(self, key: Hashable, answer: object) -> None:
        reply = self._replies.pop(key, None)
        if reply is not None:
            reply.set_result(answer)

    # ---- requests

    def open(self, request: Generate | Question) -> Stream:
        if request.request_id in self._streams:
            raise EngineError(f"{self.name}: request id {request.request_id!r} is in use")
        stream = self._streams[request.request_id] = Stream()
        self.send(request)
        return stream

    def close_stream(self, request_id: str) -> None:
        if not self._streams.pop(request_id).has_ended:
            self.send(Cancel(request_id))

    def _deliver(self, event: Event | Reply) -> None:
        stream = self._streams.get(event.request_id)
        if stream is None:  # closed by its consumer; the Cancel is on its way
            return
        stream.put(event)
        if stream.is_abandoned():
            _log.warning("%s: nobody reads request %s, cancelled", self.name, event.request_id)
            stream.is_cancelled = True
            self.send(Cancel(event.request_id))

    def fail_all(self, error: AxionError) -> None:
        """One end for everyone who still waits."""
        for request_id, stream in self._streams.items():
            if not stream.has_ended:
                stream.put(Failed(request_id, error.code, error.message))
        for key in list(self._replies):
            self._reply(key, error)
