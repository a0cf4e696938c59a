"""uvicorn's HTTP protocol: our error shape for what is no HTTP, and an end for clients that never finish asking.

A connection has HEAD_SECONDS from its first byte (or its opening) to the end of the request's head. The body has
its own limit, in body.py; an idle connection between two requests is uvicorn's to close. h11 by name, not whichever
parser is installed: its limit of 64 KiB for a head is part of what is promised.
"""

from __future__ import annotations

import asyncio

import h11
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from axion_llm.api.errors import Problem, problem_for
from axion_llm.servers.access import request_id

HEAD_SECONDS = 15.0
MAX_HEAD_BYTES = 64 * 1024
MAX_CONNECTIONS = 2000  # of one port; more are closed at once, before they cost anything


class HttpProtocol(H11Protocol):
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            return transport.abort()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:  # a head has come, or what will never be one
            self._stop_waiting()
        elif self._head_timer is None and self.conn.trailing_data[0]:
            self._expect_head()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            message = f"the head of the request was not complete after {HEAD_SECONDS:g} s"
            self._refuse(problem_for(HTTPException(408, message)), "408 Request Timeout")

    def send_400_response(self, msg: str) -> None:
        self._refuse(problem_for(HTTPException(400, msg)), "400 Bad Request")

    def _refuse(self, problem: Problem, status: str) -> None:
        body = problem.to_json()
        lines = (
            f"HTTP/1.1 {status}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id(None)}",
            "connection: close",
        )
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.transport.close()
