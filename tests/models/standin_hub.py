"""A model hub on loopback with the routes and headers that huggingface_hub uses, and with faults on demand.

Two servers, as in the world: the hub answers what a file is and sends the client on to a content server at
another address, which knows nothing of tokens. Every request is kept in `requests`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PIECE_BYTES = 64 * 1024


@dataclass
class Request:
    server: str  # "hub" or "content"
    method: str
    path: str
    range_start: int | None
    token: str | None


@dataclass
class StandInHub:
    files: dict[str, bytes] = field(default_factory=dict)  # "owner/repo/file" -> content
    requests: list[Request] = field(default_factory=list)
    error: tuple[int, str] | None = None  # HTTP status and X-Error-Code of every answer of the hub
    is_log_in_page: bool = False
    cuts_after_bytes: list[int] = field(default_factory=list)  # a break of the line for each entry
    ignores_ranges: bool = False
    corrupts: bool = False
    seconds_per_piece: float = 0.0
    endpoint: str = ""
    content_endpoint: str = ""

    def content_requests(self) -> list[Request]:
        return [r for r in self.requests if r.server == "content"]

    def by_sha256(self, sha256: str) -> bytes:
        return next(content for content in self.files.values() if hashlib.sha256(content).hexdigest() == sha256)


@contextmanager
def running_hub() -> Iterator[StandInHub]:
    hub = StandInHub()
    servers = [_serve(hub, _HubHandler), _serve(hub, _ContentHandler)]
    hub.endpoint, hub.content_endpoint = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextmanager
def reached_from_here(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point this process's huggingface_hub at the hub (another process: HF_ENDPOINT); retries do not wait."""
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    try:
        yield
    finally:
        huggingface_hub.close_session()


def _serve(hub: StandInHub, handler: type[_Handler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    name = ""

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True  # the client went away, as a killed one does

    def _note(self) -> Request:
        start = self.headers.get("Range")
        token = self.headers.get("Authorization")
        begin = int(start.removeprefix("bytes=").rstrip("-")) if start else None
        request = Request(self.name, self.command, self.path, begin, token)
        self.hub.requests.append(request)
        return request

    def do_HEAD(self) -> None:
        self.reply(self._note())

    def do_GET(self) -> None:
        self.reply(self._note())

    def reply(self, request: Request) -> None:
        raise NotImplementedError


class _HubHandler(_Handler):
    """/OWNER/REPO/resolve/REVISION/FILE"""

    name = "hub"

    def reply(self, request: Request) -> None:
        hub = self.hub
        if hub.error is not None:
            status, code = hub.error
            return self.answer(status, X_Error_Code=code, Content_Length=0)
        if hub.is_log_in_page:
            return self.answer(200, Content_Length=0)
        repo, _, rest = request.path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if not any(key.startswith(f"{repo}/") for key in hub.files):
            return self.answer(401, X_Error_Code="RepoNotFound", Content_Length=0)
        if revision not in ("main", COMMIT):
            return self.answer(404, X_Error_Code="RevisionNotFound", Content_Length=0)
        content = hub.files.get(f"{repo}/{file}")
        if content is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT, Content_Length=0)
        sha256 = hashlib.sha256(content).hexdigest()
        self.answer(
            302,
            Location=f"{hub.content_endpoint}/{sha256}",
            X_Repo_Commit=COMMIT,
            X_Linked_Etag=f'"{sha256}"',
            X_Linked_Size=len(content),
            Content_Length=0,
        )


class _ContentHandler(_Handler):
    """/SHA256, with ranges"""

    name = "content"

    def reply(self, request: Request) -> None:
        hub = self.hub
        content = hub.by_sha256(request.path.strip("/"))
        start = 0 if hub.ignores_ranges else request.range_start or 0
        if start:
            content_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, Content_Length=len(content) - start, Content_Range=content_range)
        else:
            self.answer(200, Content_Length=len(content))
        end = start + hub.cuts_after_bytes.pop(0) if hub.cuts_after_bytes else len(content)
        self._send(bytes(len(content)) if hub.corrupts else content, start, min(end, len(content)))
        self.close_connection = True

    def _send(self, content: bytes, start: int, end: int) -> None:
        for at in range(start, end, _PIECE_BYTES):
            self.wfile.write(content[at : min(at + _PIECE_BYTES, end)])
            time.sleep(self.hub.seconds_per_piece)
