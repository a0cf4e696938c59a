"""Chats with a service over its own API: the one that runs here, else one of our own for as long as we need it."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from axion_llm.cli.service_client import NotRunning, ServiceClient, connect, explain, local_urls
from axion_llm.config import Settings
from axion_llm.errors import AxionError, ServiceError
from axion_llm.security.keys import new_secret

OWN_SERVICE_SECONDS = 60.0  # to its first open port, on a busy machine

Message = dict[str, str]


@dataclass
class Answer:
    """What came, filled in while it streams."""

    text: str = ""
    finish_reason: str | None = None  # None: it was stopped, or the connection ended
    usage: dict[str, Any] = field(default_factory=dict)
    ttft_seconds: float | None = None
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Of the tokens behind the first."""
        num_tokens = self.usage.get("completion_tokens", 0) - 1
        if self.ttft_seconds is None or num_tokens < 1 or self.seconds <= self.ttft_seconds:
            return None
        return float(num_tokens) / (self.seconds - self.ttft_seconds)


@dataclass(frozen=True)
class ChatClient:
    url: str
    key: str | None = None
    is_own: bool = False  # the service is there for us only

    def models(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(ServiceClient(self.url, self.key).get("/v1/models"))["data"]
        return found

    def stream(self, model: str, messages: list[Message], answer: Answer, **options: Any) -> Generator[str, None, None]:
        """Pieces of text as they come; `answer` is filled in beside. Closing the generator ends the request."""
        body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        began = time.perf_counter()
        connection = connect(self.url)
        try:
            headers = {"content-type": "application/json"}
            if self.key:
                headers["authorization"] = f"Bearer {self.key}"
            connection.request("POST", "/v1/chat/completions", json.dumps({**body, **options}), headers)
            connection.sock.settimeout(None)  # a load takes its time
            response = connection.getresponse()
            if response.status != 200:
                raise ServiceError(explain(self.url, response.status, response.read()))
            for piece in _pieces(response, answer):
                if answer.ttft_seconds is None:
                    answer.ttft_seconds = time.perf_counter() - began
                answer.text += piece
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(f"{self.url}: the connection broke: {error or type(error).__name__}") from None
        finally:
            answer.seconds = time.perf_counter() - began
            connection.close()


def _pieces(response: http.client.HTTPResponse, answer: Answer) -> Iterator[str]:
    while line := response.readline():
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            return
        chunk = msgspec.json.decode(line[6:])
        if "error" in chunk:
            raise ServiceError(str(chunk["error"].get("message")))
        answer.usage = chunk.get("usage") or answer.usage
        for choice in chunk.get("choices", ()):
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
            if text := choice["delta"].get("content"):
                yield text
    raise ServiceError("the service ended the answer without a word")


# ---- where to


@contextmanager
def chat_client(url: str | None, key: str | None) -> Iterator[ChatClient]:
    """The service at `url`, or at a port of the settings; with none there, one of our own until the end."""
    settings = Settings.load()
    for candidate in [url] if url else local_urls(settings):
        try:
            ServiceClient(candidate, key).get("/ready", statuses=(200, 503))
        except NotRunning:
            if url:
                raise
            continue
        yield ChatClient(candidate, key)
        return
    with _own_service(settings) as client:
        yield client


@contextmanager
def _own_service(settings: Settings) -> Iterator[ChatClient]:
    service = _OwnService(settings)
    service.start()
    try:
        yield ChatClient(service.url, service.key, is_own=True)
    finally:
        service.stop()


class _OwnService:
    """A whole service in a thread, on a free port of the loopback, with a key that nobody else knows."""

    def __init__(self, settings: Settings) -> None:
        self.key = new_secret()
        self.url = ""
        self._settings = _for_one(settings, self.key)
        self._is_listening = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    def start(self) -> None:
        root = logging.getLogger()
        if not root.handlers:  # what matters comes back as the answer to a request
            root.addHandler(logging.NullHandler())
        self._thread.start()
        if not self._is_listening.wait(OWN_SERVICE_SECONDS):
            raise ServiceError("the service did not start")
        if self._error:
            raise self._error

    def stop(self) -> None:
        for _ in range(2):  # the second time says: at once
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stop.ask)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except AxionError as error:
            self._error = error
            self._is_listening.set()

    async def _serve(self) -> None:
        from axion_llm.models.live import LiveRegistry
        from axion_llm.pool.pool import Pool
        from axion_llm.servers.run import Stop, serve

        self._loop, self._stop = asyncio.get_running_loop(), Stop()
        pool = Pool(LiveRegistry(self._settings), self._settings)
        await serve(pool, self._settings, ["standard"], on_listening=self._note, stop=self._stop)

    def _note(self, urls: Any) -> None:
        self.url = urls["standard"]
        self._is_listening.set()


def _for_one(settings: Settings, key: str) -> Settings:
    """Models and threads as in the settings; nothing that is for the clients of a real service."""
    return replace(
        settings,
        host="127.0.0.1",
        standard_port=0,
        api_keys=key,
        admin_keys="",
        requests_per_minute=0,
        tokens_per_minute=0,
        allowed_hosts=(),
        tls_cert=None,
        tls_key=None,
        store_responses=False,
        tracing=False,
        warm=0,
        spare_workers=0,
    )
