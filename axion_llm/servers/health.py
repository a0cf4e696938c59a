"""Whether the service is well: what its engines' heartbeats say, not only that this process answers."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from axion_llm.errors import public
from axion_llm.kernels.footing import Footing
from axion_llm.pool.interface import ModelStatus
from axion_llm.servers.service import Service

SILENT_SECONDS = 5.0  # a healthy engine shows progress twice a second, in the middle of a long step too


def health(service: Service, *, is_known: bool) -> JSONResponse:
    """200: all that is loaded works. 503: an engine hangs (the pool will replace it), or the service stops.

    Who needs a key and has none learns the status only.
    """
    statuses = service.pool.models()
    silent = [status.spec.name for status in statuses if status.seconds_silent >= SILENT_SECONDS]
    word = "stopping" if service.drain.is_stopping else "degraded" if silent else "ok"
    body: dict[str, Any] = {"status": word}
    if is_known:
        body |= {"requests": service.drain.num_in_flight, "models": [_state(s) for s in statuses]}
        body |= {"hanging": silent, "registry_error": service.pool.registry_error}
        body |= {"kernels": _kernels(service.pool.footing)}
    return JSONResponse(body, 200 if word == "ok" else 503)


def _state(status: ModelStatus) -> dict[str, Any]:
    return {"id": status.spec.name, "state": status.state, "error": status.error and public(status.error)}


def _kernels(footing: Footing) -> dict[str, Any]:
    """Less than everything is no illness: it answers, slower."""
    return {"rung": footing.rung, "without": list(footing.without), "why": footing.why or None}


def ready(service: Service, *, is_known: bool) -> JSONResponse:
    """200 as soon as the warm models are loaded; those that failed, or crash again and again, are named.

    503 as well when all that are on this machine failed: whoever sends requests had better send them elsewhere.
    """
    if service.drain.is_stopping:
        raise HTTPException(503, "the server is shutting down")
    if not service.pool.is_ready():
        raise HTTPException(503, "models are still being loaded", {"retry-after": "1"})
    statuses = [status for status in service.pool.models() if status.state != "missing"]
    failed = {s.spec.name: s.error and public(s.error) for s in statuses if s.state == "failed"}
    if failed and len(failed) == len(statuses):
        raise HTTPException(503, "no model could be loaded; the log and /health say why", {"retry-after": "10"})
    body: dict[str, Any] = {"status": "ready"}
    if is_known:
        body |= {"failed": failed} if failed else {}
    return JSONResponse(body)
