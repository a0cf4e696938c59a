"""A load generator that costs as little as it can: it shares the cores with the server it measures.

Raw asyncio instead of an HTTP library: one request per connection, a body read until the server closes, server-sent
events told apart by their blank lines. A general client spends more time on a chunk than the server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


class BenchError(Exception):
    """The server under test did not answer as it should."""


class HttpError(BenchError):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Trace:
    """When the pieces of one answer came, in seconds since the request was sent."""

    sent: float
    pieces: list[float] = field(default_factory=list)  # one entry for each event that carried text
    end: float = 0.0
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def ttft(self) -> float:
        return self.pieces[0] if self.pieces else self.end

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False)]


async def get(url: str, key: str | None = None) -> tuple[int, str]:
    """Status and body; status 0 when nobody listens."""
    try:
        async with _request("GET", url, b"", key) as (status, reader):
            return status, (await reader.read()).decode("utf-8", "replace")
    except OSError:
        return 0, ""


async def post(url: str, body: dict[str, Any]) -> tuple[int, str]:
    """Status and body."""
    async with _request("POST", url, json.dumps(body).encode()) as (status, reader):
        return status, (await reader.read()).decode("utf-8", "replace")


async def stream_chat(base_url: str, body: dict[str, Any], trace: Trace | None = None, key: str | None = None) -> Trace:
    """One streamed chat completion. `base_url` ends in /v1; a `trace` that is given can be watched meanwhile.

    Raises HttpError when it is refused.
    """
    payload = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    trace = trace or Trace(0.0)
    trace.sent = time.perf_counter()
    async with _request("POST", f"{base_url}/chat/completions", payload, key) as (status, reader):
        if status != 200:
            words = (await reader.read()).decode("utf-8", "replace")
            raise HttpError(f"{base_url}: HTTP {status}: {words[:300]}", status)
        rest = b""
        while data := await reader.read(65536):
            now = time.perf_counter() - trace.sent
            *events, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
            for event in events:
                _note(trace, event, now)
    trace.end = time.perf_counter() - trace.sent
    if not trace.completion_tokens:
        raise BenchError(f"{base_url}: the stream ended without usage")
    return trace


async def stream_events(
    base_url: str, body: dict[str, Any], key: str | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of one streamed chat completion as they come, for what a Trace does not hold."""
    payload = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    async with _request("POST", f"{base_url}/chat/completions", payload, key) as (status, reader):
        if status != 200:
            words = (await reader.read()).decode("utf-8", "replace")
            raise BenchError(f"{base_url}: HTTP {status}: {words[:300]}")
        rest = b""
        while data := await reader.read(65536):
            *events, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
            for event in events:
                if chunk := _chunk(event):
                    yield chunk


def _chunk(event: bytes) -> dict[str, Any] | None:
    at = event.find(b"data: ")  # behind a chunk-size line where the transfer is chunked
    if at < 0 or event.startswith(b"data: [DONE]", at):
        return None
    chunk: dict[str, Any] = json.loads(event[at + 6 :])
    if "error" in chunk:
        raise BenchError(str(chunk["error"]))
    return chunk


def _note(trace: Trace, event: bytes, now: float) -> None:
    chunk = _chunk(event)
    if chunk is None:
        return
    for choice in chunk["choices"]:
        content = choice["delta"].get("content")
        if content:
            trace.text += content
            trace.pieces.append(now)
    if usage := chunk.get("usage"):
        trace.prompt_tokens, trace.completion_tokens = usage["prompt_tokens"], usage["completion_tokens"]


@contextlib.asynccontextmanager
async def _request(
    method: str, url: str, body: bytes, key: str | None = None
) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """Send it, read the head; the body is the caller's to read."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        head = f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: Bearer {key}\r\n" if key else ""
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        status = int((await reader.readline()).split()[1])
        while (await reader.readline()).strip():
            pass
        yield status, reader
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
