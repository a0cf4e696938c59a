"""Around every request of a port: its id on the answer, its line in the log, a 500 for the unexpected."""

from __future__ import annotations

import logging

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from axion_llm.api.errors import problem_for
from axion_llm.servers.access import Record, request_id
from axion_llm.servers.exchange import ClientGone
from axion_llm.servers.logs import current_request
from axion_llm.servers.telemetry import Telemetry
from axion_llm.servers.tracing import Tracer
from axion_llm.servers.transcript import Transcript

log = logging.getLogger(__name__)

_RECORD = "axion.record"


def record_of(scope: Scope) -> Record:
    record: Record = scope[_RECORD]
    return record


async def answer_with_problem(request: Request, exc: Exception) -> Response:
    """The handler of every exception an endpoint raises."""
    problem = problem_for(exc)
    record = record_of(request.scope)
    if record.model is not None:
        record.finish = f"error:{problem.code}"
    if not problem.is_expected:
        log.error("unexpected error, id=%s", record.id, exc_info=exc)
    return problem.to_response()


def _warning(record: Record) -> list[tuple[bytes, bytes]]:
    if not record.without_effect:
        return []
    return [(b"warning", f'299 - "without effect here: {", ".join(record.without_effect)}"'.encode())]


class RequestScope:
    def __init__(
        self,
        app: ASGIApp,
        port: str,
        telemetry: Telemetry,
        *,
        log_prompts: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        self.app = app
        self._port = port
        self._telemetry = telemetry
        self._log_prompts = log_prompts
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        record = self._new_record(scope)
        current = current_request.set(record.id)
        id_header = (b"x-request-id", record.id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = [*message.get("headers", ()), id_header, *_warning(record)]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientGone:
            record.finish = "disconnected"
        except Exception as exc:
            if record.status:  # too late for an answer: the connection ends
                raise
            response = await answer_with_problem(Request(scope), exc)
            await response(scope, receive, send_with_id)
        finally:
            record.write(getattr(scope.get("route"), "path", "other"))
            if self._tracer:
                self._tracer.write(record, Headers(scope=scope).get("traceparent"))
            current_request.reset(current)

    def _new_record(self, scope: Scope) -> Record:
        given = Headers(scope=scope).get("x-request-id")
        record = Record(request_id(given), self._port, scope["method"], scope["path"], self._telemetry)
        record.transcript = Transcript() if self._log_prompts else None
        scope[_RECORD] = record
        return record
