"""Clients that never finish asking are let go, in our error shape, and nobody else waits for them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from axion_llm.servers import body as body_module
from axion_llm.servers import protocol
from tests.servers.conftest import LiveServer, eventually

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
QUICK = b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(body_module, "BODY_SECONDS", 0.3)


@contextmanager
def connection(server: LiveServer) -> Iterator[socket.socket]:
    port = int(server.urls["standard"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        yield sock


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while part := sock.recv(65536):
        received += part
    return received


def read_one(sock: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"}"):
        part = sock.recv(65536)
        assert part
        received += part
    return received


def answer(raw: bytes) -> tuple[int, str]:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"x-request-id: req-" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", HEAD])
def test_a_head_that_does_not_end(server: LiveServer, sent: bytes) -> None:
    with connection(server) as sock:
        began = time.monotonic()
        sock.sendall(sent)
        assert answer(read_all(sock)) == (408, "request_timeout")
        assert 0.2 < time.monotonic() - began < 3


def test_a_head_that_comes_byte_by_byte(server: LiveServer) -> None:
    with connection(server) as sock:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in HEAD * 50:
                sock.sendall(bytes([byte]))
                time.sleep(0.02)
                assert httpx.get(server.urls["standard"] + "/health").status_code == 200
        assert time.monotonic() - began < 5


def test_the_second_head_of_a_connection(server: LiveServer) -> None:
    with connection(server) as sock:
        sock.sendall(QUICK)
        assert read_one(sock).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)  # idle between two requests: allowed
        sock.sendall(QUICK)
        assert read_one(sock).startswith(b"HTTP/1.1 200")
        sock.sendall(b"GET /heal")
        assert answer(read_all(sock)) == (408, "request_timeout")


@pytest.mark.parametrize("parts", [[], [b'{"model":'], [b"{", b'"m']])
def test_a_body_that_does_not_end(server: LiveServer, parts: list[bytes]) -> None:
    with connection(server) as sock:
        sock.sendall(HEAD + b"content-length: 1000\r\nconnection: close\r\n\r\n")
        for part in parts:
            time.sleep(0.1)
            sock.sendall(part)
        assert answer(read_all(sock)) == (408, "request_timeout")


def test_a_head_that_is_too_large(server: LiveServer) -> None:
    with connection(server) as sock:
        sock.sendall(HEAD + b"x-filler: " + b"x" * (protocol.MAX_HEAD_BYTES + 10))
        assert answer(read_all(sock)) == (400, "invalid_request")


def test_more_connections_than_a_port_takes(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 5.0)
    socks = [socket.create_connection(("127.0.0.1", int(server.urls["standard"].rpartition(":")[2]))) for _ in range(6)]
    try:
        closed = []
        for sock in socks:
            sock.settimeout(0.3)
            try:
                closed.append(sock.recv(1) == b"")
            except ConnectionResetError:
                closed.append(True)
            except TimeoutError:
                closed.append(False)
        assert sum(closed) >= 3
    finally:
        for sock in socks:
            sock.close()

    def answers() -> bool:
        try:
            return httpx.get(server.urls["standard"] + "/health").status_code == 200
        except httpx.HTTPError:
            return False

    eventually(answers)
