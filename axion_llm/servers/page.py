"""The chat page at / and the files it is made of: read once, answered from memory, allowed to do very little.

The policy in its headers: code and styles come from this server's own files only, it talks to this server only, and no
text can ever be turned into HTML (trusted types), whatever a model writes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

ROOT = Path(__file__).parent.parent / "web"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # kept, but asked for anew: the page is as new as the server
}


@dataclass(frozen=True)
class PageFile:
    content: bytes
    media_type: str
    etag: str

    async def __call__(self, request: Request) -> Response:
        headers = {**HEADERS, "etag": self.etag}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


@functools.cache
def page_files() -> dict[str, PageFile]:
    """By the path of their address. A fixed table: no path of a request ever reaches the file system."""
    found = {}
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in MEDIA_TYPES:
            name = path.relative_to(ROOT).as_posix()
            found["/" if name == "index.html" else f"/web/{name}"] = _read(path)
    return found


def add_page(app: FastAPI) -> None:
    for address, file in page_files().items():
        endpoint: Callable[[Request], Awaitable[Response]] = file.__call__
        app.add_api_route(address, endpoint, methods=["GET", "HEAD"], response_model=None, include_in_schema=False)


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
