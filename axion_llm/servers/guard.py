"""What stands before every endpoint of a port: the host and the page it is asked by, the API key, the rate limit.

A path needs a key unless it is named in OPEN_PATHS, also one that does not exist: what is added later is closed
until somebody opens it. A route that needs more than the scope "use" says so:

    app.add_api_route("/admin/unload", endpoint, methods=["POST"], dependencies=[require("admin")])

A service that has no keys takes requests from anybody who reaches it, but admin ones only from this machine.
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import Any

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from axion_llm.api.errors import problem_for
from axion_llm.config import Settings
from axion_llm.errors import AxionError, Forbidden, Unauthenticated
from axion_llm.security import keys
from axion_llm.security.keyring import KeyRing
from axion_llm.security.limits import Budget
from axion_llm.security.origin import SAFE_METHODS, is_host_allowed, is_origin_allowed
from axion_llm.servers.middleware import record_of
from axion_llm.servers.page import page_files

OPEN_PATHS = frozenset({"/health", "/ready", *page_files()})  # the page asks for the key itself
OWN_SCOPE_PATHS = frozenset({"/metrics"})  # need a key, but not one with the scope "use"
ANONYMOUS = keys.Key("anonymous", "", frozenset({"use", "metrics"}))  # of a service without keys
ANONYMOUS_HERE = keys.Key("anonymous", "", frozenset({"admin"}))  # the same, on this machine

_CALLER = "axion.caller"
_EXPOSED = ["x-request-id", "retry-after"] + [
    f"x-ratelimit-{k}-{what}" for k in ("limit", "remaining", "reset") for what in ("requests", "tokens")
]


def require(scope: keys.Scope) -> Any:
    """A dependency for routes that need more than the scope "use"."""

    async def check(request: Request) -> None:
        caller: keys.Key | None = request.scope.get(_CALLER)
        if caller is None:
            raise Unauthenticated("this needs an API key")  # an open path that was given a scope by mistake
        _check_scope(caller, scope)

    return Depends(check)


def is_known(scope: Scope) -> bool:
    """Whether the caller is one that may use the service: for open paths that tell strangers less."""
    caller: keys.Key | None = scope.get(_CALLER)
    return caller is not None


def cors_options(origins: tuple[str, ...]) -> dict[str, Any]:
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "POST", "DELETE"],
        "allow_headers": ["*"],
        "expose_headers": _EXPOSED,
        "allow_private_network": True,  # whoever is let in from a public page is let in to this address too
    }


@dataclass
class Gate:
    """Who is let in, on all ports of a process together."""

    settings: Settings

    def __post_init__(self) -> None:
        self.ring = KeyRing(self.settings)
        self._budgets: dict[keys.Key, Budget] = {}

    def check_host(self, headers: Headers) -> None:
        settings, host = self.settings, headers.get("host")
        is_asked = bool(settings.allowed_hosts) or (settings.is_loopback and not self.ring.is_asking)
        if is_asked and host is not None and not is_host_allowed(host, settings.allowed_hosts):
            known = "if that is a name of this service, start it with --allowed-host NAME"
            raise Forbidden(f"this service is not known as {host[:80]!r}; {known}")

    def check_origin(self, method: str, headers: Headers) -> None:
        origin = headers.get("origin")
        if method in SAFE_METHODS or origin is None:
            return
        if not is_origin_allowed(origin, headers.get("host", ""), self.settings.cors_origins):
            problem = "if they may, start the service with --cors-origin ORIGIN"
            raise Forbidden(f"pages of {origin[:80]!r} may not use this service; {problem}")

    def caller(self, headers: Headers, client: tuple[str, int] | None) -> keys.Key:
        if not self.ring.is_asking:
            return ANONYMOUS_HERE if client and _is_here(client[0]) else ANONYMOUS
        secret = _secret(headers)
        if not secret:
            raise Unauthenticated("You did not provide an API key. Send it as: Authorization: Bearer KEY")
        if found := self.ring.find(secret):
            return found
        raise Unauthenticated("Incorrect API key provided.")

    def tenant(self, caller: keys.Key) -> str:
        """Never "": what was asked before there were keys is not for those who have one now."""
        return "all" if self.settings.share_prefixes == "all" else caller.tenant

    def budget(self, key: keys.Key) -> Budget | None:
        """None for a key without limits. A key whose limits have been changed begins anew."""
        requests = key.requests_per_minute or self.settings.requests_per_minute
        tokens = key.tokens_per_minute or self.settings.tokens_per_minute
        if not requests and not tokens:
            return None
        if key not in self._budgets:
            self._budgets = {k: b for k, b in self._budgets.items() if k.id != key.id}
            self._budgets[key] = Budget(requests, tokens, time.monotonic())
        return self._budgets[key]


class Guard:
    """The middleware: inside RequestScope, which gives the request its record, and inside CORS."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            budget = self._admit(scope)
        except AxionError as refusal:
            return await self._refuse(scope, refusal, receive, send)
        await self.app(scope, receive, _with_limits(send, budget) if budget else send)

    def _admit(self, scope: Scope) -> Budget | None:
        """Raises what there is against the request; the budget that it is charged to, if there is one."""
        gate, headers, path = self._gate, Headers(scope=scope), scope["path"]
        gate.check_host(headers)
        gate.check_origin(scope["method"], headers)
        try:
            scope[_CALLER] = caller = gate.caller(headers, scope.get("client"))
        except Unauthenticated:
            if path not in OPEN_PATHS:
                raise
            return None
        if path in OPEN_PATHS:
            return None
        record = record_of(scope)
        if caller.sha256:
            record.key, record.owner = caller.name, caller.id
        record.tenant = gate.tenant(caller)
        if path not in OWN_SCOPE_PATHS:
            _check_scope(caller, "use")
        budget = gate.budget(caller) if scope["method"] == "POST" else None
        if budget:
            scope["axion.budget"] = budget
            budget.admit(_length(headers), time.monotonic())
            record.charge = budget.charge
        return budget

    async def _refuse(self, scope: Scope, refusal: AxionError, receive: Receive, send: Send) -> None:
        budget = scope.get("axion.budget")
        response = problem_for(refusal).to_response()
        await response(scope, receive, _with_limits(send, budget) if budget else send)


def _check_scope(caller: keys.Key, scope: keys.Scope) -> None:
    if caller.may(scope):
        return
    if not caller.sha256:
        raise Forbidden("this service has no API keys: it takes such requests from its own machine only")
    raise Forbidden(f"the API key {caller.name!r} has not got the scope {scope!r}")


def _with_limits(send: Send, budget: Budget) -> Send:
    async def send_with_limits(message: Message) -> None:
        if message["type"] == "http.response.start":
            limits = budget.headers(time.monotonic())
            message = {**message, "headers": [*message.get("headers", ()), *limits]}
        await send(message)

    return send_with_limits


def _secret(headers: Headers) -> str:
    """As OpenAI's clients send it, or as some others do."""
    kind, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _length(headers: Headers) -> int:
    announced = headers.get("content-length", "")
    return int(announced) if announced.isdecimal() and len(announced) < 16 else 0


def _is_here(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback
