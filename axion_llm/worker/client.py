"""The parent's side of one worker process: its life as a state machine.

    state      since                                    left by
    starting   start(): the process is asked for        load() -> loading
    loading    Load is sent                             Loaded -> ready
    ready      Loaded has come                          stop() -> stopping
    stopping   stop(), or a start or load that failed   the end of the process -> dead
    dead       the process has ended, all is cleaned up

The end of the process leads from every state to dead, stop() from every state but dead to stopping. `_enter`
is the only writer. Three tasks live as long as the process: one reads its messages, one feels its pulse and kills it
when it hangs, one waits for its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Literal

from axion_llm.errors import (
    AxionError,
    CrashedInLoad,
    EngineError,
    ModelLoadError,
    ServiceError,
    ShuttingDown,
    Suspended,
    WorkerDied,
    from_wire,
)
from axion_llm.worker.launch import DEFAULT_COMMAND, WorkerProcess, describe_exit, is_fault
from axion_llm.worker.link import Link
from axion_llm.worker.messages import (
    PROTOCOL,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    EngineStats,
    Event,
    Failed,
    Finished,
    Generate,
    Hello,
    Load,
    Loaded,
    Ping,
    Question,
    Reply,
    SetCores,
    Shutdown,
    Tokenize,
    Tokenized,
)

State = Literal["starting", "loading", "ready", "stopping", "dead"]

STATS_SECONDS = 10.0  # a step over a long prompt comes first
DRAIN_SECONDS = 0.05  # for what the worker sent before its end

_NEXT: dict[State, tuple[State, ...]] = {
    "starting": ("loading", "stopping", "dead"),
    "loading": ("ready", "stopping", "dead"),
    "ready": ("stopping", "dead"),
    "stopping": ("dead",),
    "dead": (),
}
_ENDED_WHILE: dict[State, str] = {"starting": " at its start", "loading": " while it loaded the model"}

_log = logging.getLogger(__name__)


class WorkerClient:
    """A `RunningModel` in a process of its own: start(), load(), then generate() at will, stop()."""

    def __init__(
        self,
        command: Sequence[str] = DEFAULT_COMMAND,
        *,
        env: Mapping[str, str] | None = None,
        start_seconds: float = 60.0,
        grace_seconds: float = 5.0,
        hang_seconds: float = 30.0,
    ) -> None:
        self.name = "worker"  # the model's, once it is told which
        self._start_seconds = start_seconds  # for the imports of a fresh interpreter on a busy machine
        self._grace_seconds = grace_seconds
        self._hang_seconds = hang_seconds  # without progress, then it is killed
        self._is_hung = False
        self._state: State = "starting"
        self._info: Loaded | None = None
        self._process = WorkerProcess(command, env)
        self._link: Link | None = None
        self._tasks: list[asyncio.Task[None]] = []  # the one that waits for the end is the last
        self._stopping: asyncio.Task[None] | None = None
        self._num_pings = 0
        self._end = asyncio.Event()
        self._crash: str | None = None  # how it ended by itself
        self._is_faulty = False

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_alive(self) -> bool:
        return self._state not in ("stopping", "dead")

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def is_faulty(self) -> bool:
        """It ended at an instruction of its own."""
        return self._is_faulty

    @property
    def seconds_silent(self) -> float:
        """How long it has done nothing though it should: a healthy one, busy or idle, stays below a second or two."""
        pulse = self._process.pulse
        return pulse.seconds_silent if pulse and self._state == "ready" else 0.0

    @property
    def info(self) -> Loaded:
        if self._info is None:
            raise EngineError(f"{self.name}: not loaded yet")
        return self._info

    # ---- what the pool asks for

    async def start(self) -> None:
        """Run the process and hear its Hello. It has no model yet: a spare one may stand ready for any."""
        try:
            link = await self._launch()
            hello: Hello | None = await link.ask("hello", None, self._start_seconds)
            if hello is None:
                raise WorkerDied(f"{self.name}: the process did not say hello in {self._start_seconds:g} s")
            if hello.protocol != PROTOCOL:
                raise ServiceError("axion-llm was replaced on disk while this service runs; restart the service")
        except BaseException:
            await self.stop()
            raise
        self._process.remove_directory()

    async def load(
        self, load: Load, timeout_seconds: float, on_progress: Callable[[float], None] | None = None
    ) -> Loaded:
        """Open a model, once. A process that could not is of no further use: it is gone when this raises."""
        link = self._usable("starting")
        self.name = link.name = load.name
        link.on_progress = on_progress
        self._enter("loading")
        try:
            self._info = await link.ask("load", load, timeout_seconds)
            if self._info is None:
                raise ModelLoadError(f"{self.name}: not loaded after {timeout_seconds:g} s, given up")
            if self._process.pulse:
                self._process.pulse.reset()
            self._enter("ready")
        except BaseException:
            await self.stop()
            raise
        return self._info

    async def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        """See `RunningModel.generate`."""
        link = self._usable("ready")
        stream = link.open(request)
        try:
            while True:
                event = await stream.get()
                if isinstance(event, Failed):
                    raise from_wire(event.code, event.message, event.param, event.retry_after_seconds)
                assert not isinstance(event, Reply)
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            link.close_stream(request.request_id)

    async def embed(self, request: Embed) -> Embedded:
        """See `RunningModel.embed`."""
        reply = await self._ask(request)
        assert isinstance(reply, Embedded)
        return reply

    async def tokenize(self, request: Tokenize) -> Tokenized:
        reply = await self._ask(request)
        assert isinstance(reply, Tokenized)
        return reply

    async def detokenize(self, request: Detokenize) -> Detokenized:
        reply = await self._ask(request)
        assert isinstance(reply, Detokenized)
        return reply

    async def _ask(self, request: Question) -> object:
        link = self._usable("ready")
        stream = link.open(request)
        try:
            reply = await stream.get()
        finally:
            link.close_stream(request.request_id)
        if isinstance(reply, Failed):
            raise from_wire(reply.code, reply.message, reply.param, reply.retry_after_seconds)
        return reply

    def set_cores(self, num_threads: int, cpus: Sequence[int] = ()) -> None:
        """From the next step on compute with so many threads, on these CPUs only (none given: on any)."""
        self._usable("ready").send(SetCores(num_threads, list(cpus)))

    async def stats(self, timeout_seconds: float = STATS_SECONDS) -> EngineStats:
        link = self._usable("ready")
        self._num_pings += 1
        stats: EngineStats | None = await link.ask(self._num_pings, Ping(self._num_pings), timeout_seconds)
        if stats is None:
            raise EngineError(f"{self.name}: the worker has not answered for {timeout_seconds:g} s")
        return stats

    @property
    def last_stats(self) -> EngineStats:
        """As it said last: the final ones once it has been stopped in order."""
        return self._link.last_stats if self._link else EngineStats()

    async def stop(self, *, suspend: bool = False) -> None:
        """End its requests with ShuttingDown (or Suspended), then the process; nothing is left. May be repeated."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(suspend))
        await asyncio.shield(self._stopping)

    async def ended(self) -> str | None:
        """Returns at its end: why it ended by itself, or None when it was stopped."""
        await self._end.wait()
        return self._crash

    # ---- life

    def _enter(self, state: State) -> None:
        if state not in _NEXT[self._state]:
            raise EngineError(f"{self.name}: a worker cannot go from {self._state} to {state}")
        _log.debug("%s (pid %s): %s -> %s", self.name, self.pid, self._state, state)
        self._state = state

    def _usable(self, state: State) -> Link:
        """The link, for something that only `state` allows."""
        if self._state == "dead":
            raise WorkerDied(f"{self.name}: the worker process has ended")
        if self._state == "stopping":
            raise ShuttingDown(f"{self.name} is being unloaded")
        if self._state != state or self._link is None:
            raise EngineError(f"{self.name}: the worker is {self._state}, not {state}")
        return self._link

    async def _launch(self) -> Link:
        endpoint = self._process.make_endpoint()
        self._link = link = Link(endpoint)
        await self._process.start(endpoint)
        if self._state != "starting":  # stopped while it was being created
            await self._process.end(None)
            raise ShuttingDown("stopped before its start")
        lives = (self._read(link), self._feel_pulse(), self._watch(link))
        self._tasks = [asyncio.create_task(life) for life in lives]
        return link

    async def _stop(self, suspend: bool) -> None:
        if self._state == "dead":
            return
        was_ready = self._state == "ready"
        self._enter("stopping")
        if self._link:
            kind = Suspended if suspend else ShuttingDown
            self._link.fail_all(kind(f"{self.name} is being unloaded"))
            if was_ready:
                self._link.send(Shutdown())
        if not self._tasks:  # it has never run
            return self._bury()
        # Until it is ready it does not listen, and has nothing that is worth a wait.
        await self._process.end(self._grace_seconds if was_ready else None)
        await self._tasks[-1]

    async def _read(self, link: Link) -> None:
        try:
            await link.read()
        except Exception:
            _log.exception("%s: worker %s killed, for its message made no sense", self.name, self.pid)
            self._process.kill()

    async def _feel_pulse(self) -> None:
        """A load has a time limit of its own, and so has the end."""
        assert self._process.pulse is not None
        await self._process.pulse.watch(lambda: self._hang_seconds if self._state == "ready" else None)
        self._is_hung = True
        self._process.kill()

    async def _watch(self, link: Link) -> None:
        code = await self._process.wait()
        if self._state != "stopping":
            await asyncio.sleep(DRAIN_SECONDS)
        if self._state != "stopping":
            link.fail_all(self._unexpected_end(code or 0))
        self._bury()

    def _unexpected_end(self, code: int) -> AxionError:
        while_ = _ENDED_WHILE.get(self._state, "")
        message = f"{self.name}: the worker process ended{while_} ({describe_exit(code)})"
        if self._is_hung:
            message = f"{self.name}: the worker process made no progress for {self._hang_seconds:g} s and was killed"
        if self._process.tail:
            message += f"\nits last output:\n{self._process.tail}"  # a client is told the first line only
        self._crash = message
        self._is_faulty = is_fault(code)
        _log.error("%s", message)
        if self._state == "ready":
            return WorkerDied(message)
        error = CrashedInLoad(message)
        error.is_fault = self._is_faulty
        return error

    def _bury(self) -> None:
        self._enter("dead")
        for task in self._tasks[:-1]:
            task.cancel()
        if self._link:
            self._link.close()
        self._process.close()
        self._end.set()
