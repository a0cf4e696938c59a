"""uvicorn's HTTP protocol, with our error shape for what is no HTTP and so never reaches an application."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from axion_llm.api.errors import problem_for
from axion_llm.servers.access import request_id


class HttpProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen when uvicorn is imported
    def send_400_response(self, msg: str) -> None:
        body = problem_for(HTTPException(400, msg)).to_json()
        lines = (
            "HTTP/1.1 400 Bad Request",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id(None)}",
            "connection: close",
        )
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.transport.close()
