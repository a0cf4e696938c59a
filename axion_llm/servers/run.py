"""The life of the service: ports, then models, then requests, until a signal; then the same backwards.

first signal     no new request; those in flight have `shutdown_grace_seconds`, then an error ends them
second signal    they end at once
third signal     the process ends as if it had never heard of any of this
SIGHUP           the registry is read anew
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI

from axion_llm.config import Settings
from axion_llm.pool.interface import ModelPool
from axion_llm.servers.app import PROFILES, create_app
from axion_llm.servers.drain import Drain
from axion_llm.servers.guard import Gate
from axion_llm.servers.listen import BACKLOG, listen_all, url
from axion_llm.servers.profile import Kind
from axion_llm.servers.protocol import MAX_HEAD_BYTES, HttpProtocol
from axion_llm.servers.response_store import open_store
from axion_llm.servers.telemetry import Telemetry
from axion_llm.servers.tls import tls_options
from axion_llm.servers.tracing import SpanWriter

log = logging.getLogger(__name__)

# Longer than clients keep an idle connection: else one may send a request into one that is being closed.
IDLE_CONNECTION_SECONDS = 75
READY_POLL_SECONDS = 0.05
LAST_WORDS_SECONDS = 2.0  # for the error events, and for what is still in the sockets' buffers

Urls = dict[Kind, str]


class Stop:
    """The order to stop, and the order to be quick about it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()

    def ask(self) -> None:
        if self.asked.is_set():
            self.forced.set()
        self.asked.set()


class _Server(uvicorn.Server):
    """One port; its signals are ours."""

    def __init__(self, app: FastAPI, settings: Settings, tls: Mapping[str, Any]) -> None:
        config = uvicorn.Config(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            **tls,
            timeout_keep_alive=IDLE_CONNECTION_SECONDS,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_seconds + 2 * LAST_WORDS_SECONDS),
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def cut_connections(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


async def serve(
    pool: ModelPool,
    settings: Settings,
    kinds: Sequence[Kind],
    *,
    on_listening: Callable[[Urls], None] = lambda urls: None,
    on_ready: Callable[[], None] = lambda: None,
    stop: Stop | None = None,
) -> None:
    """Runs until a signal, or `stop`. Raises ConfigError for a port that cannot be had, before any load."""
    stop = stop or Stop()
    drain, gate, tls = Drain(), Gate(settings), tls_options(settings)
    tracer = SpanWriter() if settings.tracing else None
    sockets = listen_all(settings, [PROFILES[kind] for kind in kinds])
    responses = open_store(settings)
    shared: dict[str, Any] = {"drain": drain, "gate": gate, "telemetry": Telemetry(), "tracer": tracer}
    shared["responses"] = responses
    apps = [create_app(pool, settings, kind=kind, **shared) for kind in kinds]
    servers = [_Server(app, settings, tls) for app in apps]
    with _signals(stop, pool):
        scheme = "https" if settings.tls_cert else "http"
        on_listening({kind: url(sock, scheme) for kind, sock in zip(kinds, sockets, strict=True)})
        running = [asyncio.create_task(s.serve([sock])) for s, sock in zip(servers, sockets, strict=True)]
        started = asyncio.create_task(_start(pool, on_ready))
        try:
            await _until_stopped(started, running, stop)
        finally:
            await _cancel(started)
            await _end_requests(drain, stop, servers, settings.shutdown_grace_seconds)
            await _end_servers(servers, running)
            await pool.stop()
            if tracer:
                await asyncio.to_thread(tracer.stop)
            if responses:
                responses.close()


async def _start(pool: ModelPool, on_ready: Callable[[], None]) -> None:
    await pool.start()
    while not pool.is_ready():  # noqa: ASYNC110  the pool's interface has no event for it
        await asyncio.sleep(READY_POLL_SECONDS)
    on_ready()


async def _until_stopped(started: asyncio.Task[None], running: list[asyncio.Task[None]], stop: Stop) -> None:
    """Returns when asked to stop; raises what went wrong when something ended that should not have."""
    asked = asyncio.create_task(stop.asked.wait())
    try:
        waiting: set[asyncio.Task[None]] = {started, *running}
        while not asked.done():
            done, _ = await asyncio.wait([asked, *waiting], return_when=asyncio.FIRST_COMPLETED)
            for task in done & waiting:
                task.result()
            waiting -= done
    finally:
        await _cancel(asked)


async def _end_requests(drain: Drain, stop: Stop, servers: list[_Server], grace_seconds: float) -> None:
    drain.stop_entering()
    for server in servers:
        server.should_exit = True
    await _first_of(drain.wait_until_idle(), stop.forced.wait(), seconds=grace_seconds)
    if drain.num_in_flight:
        log.info("ending %d requests that are not complete", drain.num_in_flight)
    drain.end_all()
    await _first_of(drain.wait_until_idle(), seconds=LAST_WORDS_SECONDS)


async def _end_servers(servers: list[_Server], running: list[asyncio.Task[None]]) -> None:
    _, late = await asyncio.wait(running, timeout=LAST_WORDS_SECONDS)
    if late:
        for server in servers:
            server.cut_connections()
    await asyncio.gather(*running, return_exceptions=True)


async def _first_of(*waits: Awaitable[object], seconds: float) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            await _cancel(task)


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def _signals(stop: Stop, pool: ModelPool) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # whoever started it there has `stop`
        yield
        return
    loop = asyncio.get_running_loop()
    received = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        stop.ask()
        if stop.forced.is_set():
            for signum in received:
                loop.remove_signal_handler(signum)
                signal.signal(signum, signal.SIG_DFL)

    reloads: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        reload = asyncio.ensure_future(pool.reload())
        reloads.add(reload)
        reload.add_done_callback(reloads.discard)

    for signum in received:
        loop.add_signal_handler(signum, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield
    finally:
        for signum in (*received, signal.SIGHUP):
            loop.remove_signal_handler(signum)
