"""What a stream looks like on the wire, and what happens to it when one side leaves or fails."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from axion_llm import errors
from axion_llm.servers.answer import Answer
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import eventually

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def data(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


@contextmanager
def raw_post(url: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as sock:
        sock.sendall(head.encode() + content)
        yield sock


@pytest.mark.behaviour("streams.finish")
def test_headers_and_frames(http: httpx.Client) -> None:
    response = http.post(CHAT, json=BODY)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-request-id"]
    assert response.text.endswith("data: [DONE]\n\n")
    assert all(block.startswith("data: ") and "\n" not in block for block in response.text.split("\n\n")[:-1])


def test_one_event_for_each_token_also_when_they_come_at_once(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(pieces=[f"{i} " for i in range(500)], wait=False)
    found = data(http.post(CHAT, json=BODY).text)
    assert len(found) == 1 + 500 + 1 + 1


@pytest.mark.behaviour("streams.failure")
@pytest.mark.parametrize("fail_after", [0, 1, 2])
@pytest.mark.parametrize(
    ("exc", "code"),
    [(errors.WorkerDied("gone"), "worker_died"), (RuntimeError("secret"), "internal_error")],
)
def test_a_failure_in_mid_stream(
    http: httpx.Client, pool: FakePool, exc: Exception, code: str, fail_after: int
) -> None:
    pool.script = Script(fail=exc, fail_after=fail_after, delay=0.01)
    response = http.post(CHAT, json=BODY | {"n": 2})
    assert response.status_code == 200
    *chunks, error, done = data(response.text)
    assert done == "[DONE]"
    assert json.loads(error)["error"]["code"] == code
    assert set(json.loads(error)["error"]) == {"message", "type", "param", "code"}
    assert len(chunks) >= 2
    assert "secret" not in response.text
    assert http.post(CHAT, json=BODY).status_code == 200  # the connection is still good


@pytest.mark.behaviour("streams.failure")
def test_a_model_that_ends_without_a_word(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(has_end=False)
    *_, error, done = data(http.post(CHAT, json=BODY).text)
    assert json.loads(error)["error"]["code"] == "service_error"
    assert done == "[DONE]"


@pytest.mark.behaviour("errors.cold_model")
def test_a_cold_model_holds_the_request_open(http: httpx.Client, pool: FakePool) -> None:
    pool.load_seconds = 0.3
    began = time.monotonic()
    assert data(http.post(CHAT, json=BODY).text)[-1] == "[DONE]"
    assert time.monotonic() - began > 0.25


@pytest.mark.behaviour("streams.keep_alive")
def test_comments_in_a_long_silence(http: httpx.Client, pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "keep_alive_seconds", 0.05)
    pool.script = Script(pieces=["a", "b"], delay=0.3)
    text = http.post(CHAT, json=BODY).text
    assert text.count(": keep-alive\n\n") >= 4
    content = [json.loads(d)["choices"][0]["delta"].get("content") for d in data(text)[:-1]]
    assert content == ["", "a", "b", None]


def test_no_comments_while_tokens_come(http: httpx.Client, pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "keep_alive_seconds", 0.5)
    pool.script = Script(pieces=["a"] * 20, delay=0.04)
    assert "keep-alive" not in http.post(CHAT, json=BODY).text


@pytest.mark.behaviour("streams.leaving")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_leaves_in_the_middle(url: str, pool: FakePool, stream: bool, n: int) -> None:
    pool.script = Script(hang_after=1)
    with raw_post(url, BODY | {"stream": stream, "n": n}):
        eventually(lambda: pool.num_running == n)
    eventually(lambda: pool.num_running == 0 and pool.num_leases == 0)
    assert pool.num_cancelled == n


@pytest.mark.behaviour("streams.leaving")
def test_a_client_that_leaves_while_the_model_loads(url: str, pool: FakePool) -> None:
    pool.load_seconds = 60
    with raw_post(url, BODY):
        eventually(lambda: pool.num_leases == 1)
    eventually(lambda: pool.num_leases == 0)
    assert pool.requests == []


def test_a_client_that_leaves_in_the_middle_of_its_body(url: str, pool: FakePool) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
        sock.sendall(b"content-length: 500\r\n\r\n{")
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_client_that_does_not_read_does_not_hold_the_model(url: str, pool: FakePool) -> None:
    pool.script = Script(pieces=["x" * 10_000] * 2000, wait=False)
    with raw_post(url, BODY):
        eventually(lambda: len(pool.requests) == 1 and pool.num_running == 0 and pool.num_leases == 0)
        assert pool.num_cancelled == 0  # it went to its end; only the socket is still full
    eventually(lambda: httpx.get(f"{url}/health").json()["requests"] == 0)


def test_nothing_is_cancelled_that_has_ended(http: httpx.Client, pool: FakePool) -> None:
    for stream in (True, False):
        http.post(CHAT, json=BODY | {"stream": stream, "n": 2})
    assert pool.num_cancelled == 0


def test_http_1_0(url: str) -> None:
    content = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\n")
        sock.sendall(b"content-length: %d\r\n\r\n" % len(content) + content)
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.endswith(b"data: [DONE]\n\n")


def test_a_client_that_reads_nothing_is_cancelled_and_named_in_the_log(
    url: str, http: httpx.Client, pool: FakePool, caplog: pytest.LogCaptureFixture
) -> None:
    pool.script = Script(pieces=["x" * 2000] * 20_000)  # 40 MB: more than the sockets' buffers take
    with raw_post(url, BODY) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        eventually(lambda: pool.num_cancelled == 1 and pool.num_leases == 0)
        eventually(lambda: "stopped reading" in caplog.text)
        pool.script = Script()
        assert http.post(CHAT, json=BODY | {"stream": False}).status_code == 200
