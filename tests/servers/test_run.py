"""From the first socket to the last word: ports that cannot be had, a stop with or without hurry, signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from axion_llm.config import Settings
from axion_llm.errors import ConfigError, NativeLibraryError
from axion_llm.servers import standard
from axion_llm.servers.listen import listen_all
from tests.fakes.fake_pool import Script
from tests.servers.conftest import LiveServer, eventually

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


@pytest.fixture
def fresh() -> Iterator[LiveServer]:
    """A server for tests that stop it; half a second of grace."""
    server = LiveServer(shutdown_grace_seconds=0.5).start()
    yield server
    server.ask_to_stop()
    server.join()
    if server.error:
        raise server.error


def events_of(text: str) -> list[Any]:
    found = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert found.pop() == "[DONE]"
    return [json.loads(d) for d in found]


def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


taken = pytest.fixture(taken_port)


@pytest.mark.parametrize(
    ("setting", "option"), [("standard_port", "--standard-port"), ("streaming_port", "--streaming-port")]
)
def test_a_port_in_use(taken: int, setting: str, option: str) -> None:
    server = LiveServer(**{setting: taken})
    with pytest.raises(ConfigError) as caught:
        server.start()
    for part in (str(taken), "in use", option, f"AXION_{setting.upper()}"):
        assert part in caught.value.message
    assert caught.value.param == setting
    assert not server.pool.is_stopped  # it was never started


def test_sockets_do_not_wait_to_fill_a_packet() -> None:
    """asyncio turns Nagle off only where the socket names its protocol; if not, each answer takes 40 ms."""
    [sock] = listen_all(Settings(standard_port=0), [standard.PROFILE])
    with sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_one_port_for_two() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConfigError, match="in use"):
        LiveServer(standard_port=port, streaming_port=port).start()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(ConfigError, match="--host"):
        LiveServer(host=host).start()


def test_other_hosts() -> None:
    for host, shown in (("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")):
        try:
            server = LiveServer(host=host).start()
        except ConfigError:
            assert host == "::1"  # no IPv6 here
            continue
        assert server.urls["standard"].startswith(f"http://{shown}:")
        assert httpx.get(f"{server.urls['standard']}/health").status_code == 200
        server.ask_to_stop()
        server.join()


def test_a_pool_that_cannot_start_ends_the_service() -> None:
    server = LiveServer()

    async def start() -> None:
        raise NativeLibraryError("the library is from another build")

    server.pool.start = start  # type: ignore[method-assign]
    with pytest.raises(NativeLibraryError, match="another build"):
        server.start()
    server.join()
    assert server.pool.is_stopped


def test_streams_that_end_within_the_grace_are_whole(fresh: LiveServer) -> None:
    fresh.pool.script = Script(pieces=["a"] * 10, delay=0.02)
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(httpx.post, fresh.urls["standard"] + CHAT, json=BODY)
        eventually(lambda: fresh.pool.num_running == 1)
        fresh.ask_to_stop()
        assert events_of(answer.result().text)[-1]["choices"][0]["finish_reason"] == "stop"
    fresh.join()
    assert fresh.pool.is_stopped


@pytest.mark.parametrize("is_hurried", [False, True])
def test_what_does_not_end_by_itself_is_ended_with_an_error(is_hurried: bool) -> None:
    server = LiveServer(shutdown_grace_seconds=0.5 if not is_hurried else 60.0).start()
    server.pool.script = Script(hang_after=1)
    with ThreadPoolExecutor() as threads, httpx.Client() as idle:
        idle.get(server.urls["standard"] + "/health")
        streams = [threads.submit(httpx.post, url + CHAT, json=BODY) for url in server.urls.values()]
        plain = threads.submit(httpx.post, server.urls["standard"] + CHAT, json=BODY | {"stream": False})
        eventually(lambda: server.pool.num_running == len(streams) + 1)
        began = time.monotonic()
        server.ask_to_stop()
        if is_hurried:
            server.ask_to_stop()
        for stream in streams:
            assert events_of(stream.result().text)[-1]["error"]["code"] == "shutting_down"
        assert plain.result().status_code == 503
        assert plain.result().json()["error"]["code"] == "shutting_down"
    server.join()
    assert time.monotonic() - began < 3
    assert server.pool.num_running == 0
    assert server.pool.is_stopped
    assert server.error is None


def test_while_it_stops_nothing_new_begins(fresh: LiveServer) -> None:
    fresh.pool.script = Script(hang_after=1)
    url = fresh.urls["standard"]
    with ThreadPoolExecutor() as threads:
        threads.submit(httpx.post, url + CHAT, json=BODY)
        eventually(lambda: fresh.pool.num_running == 1)
        fresh.ask_to_stop()
        eventually(lambda: not _can_connect(url))


def _can_connect(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_client_that_does_not_read_does_not_stop_the_stop(fresh: LiveServer) -> None:
    fresh.pool.script = Script(pieces=["x" * 10_000] * 2000, wait=False)
    content = json.dumps(BODY).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    port = int(fresh.urls["standard"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content)
        eventually(lambda: len(fresh.pool.requests) == 1 and fresh.pool.num_running == 0)
        fresh.ask_to_stop()
        fresh.join()


SERVICE = """
import asyncio, sys
from axion_llm.config import Settings
from axion_llm.servers.run import serve
from tests.fakes.fake_pool import FakePool, Script

pool = FakePool(script=Script(hang_after=1))
settings = Settings(standard_port=0, streaming_port=0, shutdown_grace_seconds=float(sys.argv[1]))
say = lambda urls: print(urls["standard"], flush=True)
asyncio.run(serve(pool, settings, ["standard"], on_listening=say))
print("stopped" if pool.is_stopped else "not stopped")
"""


class Service:
    """The servers in a process of their own, for signals."""

    def __init__(self, grace_seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(grace_seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def hanging_stream(self) -> tuple[threading.Thread, list[str]]:
        received: list[str] = []
        has_begun = threading.Event()

        def read() -> None:
            with httpx.stream("POST", self.url + CHAT, json=BODY, timeout=20) as response:
                for line in response.iter_lines():
                    received.append(line)
                    has_begun.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert has_begun.wait(10)
        return thread, received

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=15)
        return self.process.returncode, out


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_streams_cleanly(signum: signal.Signals) -> None:
    service = Service(0.3)
    thread, received = service.hanging_stream()
    service.process.send_signal(signum)
    assert service.end() == (0, "stopped\n")
    thread.join()
    assert events_of("\n".join(received))[-1]["error"]["code"] == "shutting_down"


def test_a_second_signal_does_not_wait() -> None:
    service = Service(60)
    thread, received = service.hanging_stream()
    service.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    service.process.send_signal(signal.SIGINT)
    assert service.end() == (0, "stopped\n")
    thread.join()
    assert events_of("\n".join(received))[-1]["error"]["code"] == "shutting_down"


def test_a_signal_with_nothing_to_do() -> None:
    service = Service(60)
    began = time.monotonic()
    service.process.terminate()
    assert service.end() == (0, "stopped\n")
    assert time.monotonic() - began < 3
