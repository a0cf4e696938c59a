"""Browsers' questions about other origins, with refusals in the shape that all of our errors have."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from axion_llm.api.errors import problem_for

PRIVATE_NETWORK = "access-control-allow-private-network"


class Cors(CORSMiddleware):
    """A refused preflight grants nothing, and says why in JSON."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refusal = problem_for(HTTPException(answer.status_code, bytes(answer.body).decode())).to_response()
        for name, value in answer.headers.items():
            if name.startswith("access-control") or name == "vary":
                refusal.headers[name] = value
        if PRIVATE_NETWORK in refusal.headers:
            del refusal.headers[PRIVATE_NETWORK]
        return refusal
