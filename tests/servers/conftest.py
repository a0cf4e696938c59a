"""The ports for real: uvicorn in a thread over a fake pool, and clients that connect to it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import httpx
import openai
import pytest

from axion_llm.config import Settings
from axion_llm.servers.run import Stop, Urls, serve
from tests.fakes.fake_pool import FakePool

MAX_BODY_BYTES = 300_000


class LiveServer:
    """`pool` is looked at and scripted from the test's thread, which is all right for plain attributes."""

    def __init__(self, **settings: object) -> None:
        self._home = tempfile.TemporaryDirectory()
        values = {
            "responses_file": Path(self._home.name) / "data" / "responses.sqlite",
            "standard_port": 0,
            "streaming_port": 0,
            "consensus_port": 0,
            "max_body_bytes": MAX_BODY_BYTES,
            **settings,
        }
        self.settings = Settings(**values)  # type: ignore[arg-type]
        self.pool = FakePool()
        self.urls: Urls = {}
        self.error: BaseException | None = None
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> LiveServer:
        self._thread.start()
        assert self._is_listening.wait(10)
        if self.error:
            raise self.error
        return self

    def ask_to_stop(self) -> None:
        with suppress(RuntimeError):  # it has stopped
            self._loop.call_soon_threadsafe(self._stop.ask)

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def reset(self) -> None:
        new = FakePool()
        for field in fields(FakePool):
            setattr(self.pool, field.name, getattr(new, field.name))

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            self.error = exc
            self._is_listening.set()
        finally:
            self._home.cleanup()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), Stop()
        await serve(
            self.pool,
            self.settings,
            ["standard", "streaming", "consensus"],
            on_listening=self.urls.update,
            on_ready=self._is_listening.set,
            stop=self._stop,
        )


@pytest.fixture(scope="session")
def _session_server() -> Iterator[LiveServer]:
    server = LiveServer().start()
    yield server
    server.ask_to_stop()
    server.join()


@pytest.fixture
def server(_session_server: LiveServer) -> Iterator[LiveServer]:
    """One for all tests; each finds it with a fresh pool, and none may leave a request in it."""
    _session_server.reset()
    yield _session_server
    eventually(lambda: _session_server.pool.num_running == _session_server.pool.num_leases == 0)


@pytest.fixture
def pool(server: LiveServer) -> FakePool:
    return server.pool


@pytest.fixture(params=["standard", "streaming", "consensus"])
def url(server: LiveServer, request: pytest.FixtureRequest) -> str:
    """The statements on errors and streaming hold on each port: a test that takes this runs on all."""
    kind: str = request.param
    return {str(k): v for k, v in server.urls.items()}[kind]


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
async def async_sdk(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


def eventually(is_so: Callable[[], bool], seconds: float = 5.0) -> None:
    """The server is another thread: what it does about a client that left takes a moment to be seen."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "has not happened"
        time.sleep(0.005)
