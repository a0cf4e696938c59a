"""Asks a service that runs on this machine or another: finds its port, sends the key, explains what went wrong."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import click
import msgspec

from axion_llm.api import status as doc
from axion_llm.config import Settings
from axion_llm.errors import ServiceError

CONNECT_SECONDS = 5.0
PORTS = ("standard_port", "streaming_port", "consensus_port")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class NotRunning(ServiceError):
    """Nobody listens there."""


def service_options(command: _Command) -> _Command:
    """--url and --key, for a command that takes `url` and `key`."""
    key = click.option("--key", envvar="AXION_KEY", help="An API key, if the service has keys.")
    url = click.option("--url", help="Of the service, such as http://10.0.0.5:8082.  [any of its ports, here]")
    return url(key(command))


@dataclass(frozen=True)
class ServiceClient:
    """`url` None: the ports of the settings are tried in turn."""

    url: str | None = None
    key: str | None = None

    def status(self, *, with_memory: bool) -> doc.Status:
        return doc.decode_status(self._ask("GET", f"/admin/status?memory={int(with_memory)}"))

    def order(self, name: str, order: str, **options: Any) -> doc.Order:
        """Waits as long as a load takes. Raises ServiceError with the service's own words."""
        return doc.decode_order(self._ask("POST", f"/admin/models/{quote(name)}/{order}", options, seconds=None))

    def get(self, path: str, statuses: tuple[int, ...] = (200,)) -> bytes:
        return self._ask("GET", path, statuses=statuses)

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        seconds: float | None = 30.0,
        statuses: tuple[int, ...] = (200,),
    ) -> bytes:
        tried = [self.url] if self.url else local_urls(Settings.load())
        for url in tried:
            try:
                return self._exchange(url, method, path, body, seconds, statuses)
            except NotRunning:
                continue
        raise NotRunning(
            f"no service answers at {' or '.join(tried)}. Start one with: axion-llm serve. If one runs elsewhere: "
            "--url http://HOST:PORT, or the AXION_HOST and AXION_STANDARD_PORT that it was started with"
        )

    def _exchange(
        self,
        url: str,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        seconds: float | None,
        statuses: tuple[int, ...],
    ) -> bytes:
        connection = connect(url)
        try:
            connection.sock.settimeout(seconds)
            headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
            if body is not None:
                headers["content-type"] = "application/json"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(f"{url}: the service did not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if response.status not in statuses:
            raise ServiceError(explain(url, response.status, answer))
        return answer


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{url!r} is no address such as http://127.0.0.1:8082", param_hint="--url")
    host, port = parts.hostname, parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=_trust())
    else:
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise ServiceError(
            f"{url}: its certificate is not trusted: {error.verify_message}. Ask by the name in it, and "
            "if it is your own, name it as for serve: AXION_TLS_CERT=FILE"
        ) from None
    except OSError as error:
        raise NotRunning(f"{url}: {error}") from None
    return connection


def _trust() -> ssl.SSLContext:
    """What this machine trusts, and the certificate of the service that is set up here."""
    context = ssl.create_default_context()
    own = Settings.load().tls_cert
    if own is not None and own.is_file():
        context.load_verify_locations(own)
    return context


def local_urls(settings: Settings) -> list[str]:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    ports = [getattr(settings, port) for port in PORTS]
    scheme = "https" if settings.tls_cert else "http"
    return [f"{scheme}://{host}:{port}" for port in ports if port]


def explain(url: str, status: int, answer: bytes) -> str:
    try:
        message = str(msgspec.json.decode(answer)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"{url}: HTTP {status}, and not in the words of an axion-llm service: is it one?"
    if status == 403:
        return f"{message}. Give a key with the scope admin: --key KEY or AXION_KEY=KEY (axion-llm keys makes them)"
    if status == 401:
        return f"{message}. Give one: --key KEY or AXION_KEY=KEY (axion-llm keys makes them)"
    if status == 404 and "/v1/models" in message:
        return f"{url}: {message}: is it an older version of axion-llm?"
    return message
