"""An image from an http(s) URL that a client has sent: where it may lead, how much and how long it may take.

The host is resolved once, every address it has must be a public one, and the connection goes to the address that was
checked: a name that says something else a moment later leads nowhere. Each redirect is checked like the first URL.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from axion_llm import __version__

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IsAllowed = Callable[[Address], bool]

MAX_REDIRECTS = 3
MAX_URL_CHARS = 4096
READ_BYTES = 64 * 1024
MAX_AT_ONCE = 8
_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_threads = ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="images")


class CannotFetch(Exception):
    """With the reason, for the client."""


@dataclass(frozen=True)
class Limits:
    max_bytes: int
    timeout_seconds: float
    is_allowed: IsAllowed


async def fetch(url: str, limits: Limits) -> bytes:
    """The body behind the URL; raises CannotFetch."""
    one = _Fetch(limits)
    loop = asyncio.get_running_loop()
    try:
        return await asyncio.wait_for(loop.run_in_executor(_threads, one.run, url), limits.timeout_seconds)
    except asyncio.TimeoutError:
        raise CannotFetch(f"it took longer than {limits.timeout_seconds:g} s") from None
    finally:
        one.abort()


def is_public(address: Address) -> bool:
    """Not of this machine, this network or any other private one, also not in disguise."""
    inner = _embedded(address)
    return address.is_global and not address.is_multicast and (inner is None or is_public(inner))


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """An IPv4 address that the IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


class _Fetch:
    """Runs in a thread; `abort` may come from another at any time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sock: socket.socket | None = None
        self._is_aborted = False

    def abort(self) -> None:
        """Wakes the thread up from whatever it waits for on its connection."""
        self._is_aborted = True
        sock = self._sock
        if sock is not None:
            with suppress(OSError):  # closed by now
                sock.shutdown(socket.SHUT_RDWR)

    def run(self, url: str) -> bytes:
        try:
            for _ in range(MAX_REDIRECTS + 1):
                answer = self._get(_split(url))
                if isinstance(answer, bytes):
                    return answer
                url = urljoin(url, answer)
        except (OSError, http.client.HTTPException) as error:
            raise CannotFetch(f"the connection failed ({type(error).__name__})") from error
        raise CannotFetch(f"it leads through more than {MAX_REDIRECTS} redirects")

    def _get(self, url: SplitResult) -> bytes | str:
        """The body, or where it is said to be."""
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {"accept": "image/*", "user-agent": f"axion-llm/{__version__}", "accept-encoding": "identity"}
        with closing(self._connect(url)) as connection:
            connection.request("GET", path, headers=headers)
            with closing(connection.getresponse()) as response:
                location = response.getheader("location")
                if response.status in _REDIRECTS and location:
                    return location
                if response.status != 200:
                    raise CannotFetch(f"its server answers with status {response.status}")
                return self._body(response)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        body, most = bytearray(), self._limits.max_bytes
        if (response.length or 0) > most:
            raise CannotFetch(f"it has more than {most:,} bytes")
        while part := response.read1(READ_BYTES):
            body += part
            if len(body) > most:
                raise CannotFetch(f"it has more than {most:,} bytes")
            if self._is_aborted:
                raise CannotFetch("nobody waits for it any more")
        if response.length:
            raise CannotFetch("it ended too early")
        return bytes(body)

    def _connect(self, url: SplitResult) -> http.client.HTTPConnection:
        assert url.hostname is not None
        port = url.port or (443 if url.scheme == "https" else 80)
        address = self._resolve(url.hostname, port)
        timeout = self._limits.timeout_seconds
        kind: type[http.client.HTTPConnection] = (
            http.client.HTTPSConnection if url.scheme == "https" else (http.client.HTTPConnection)
        )
        connection = kind(url.hostname, port, timeout=timeout)
        sock = socket.create_connection((address, port), timeout=timeout)
        # Given a socket, it does not connect by itself: neither to another address nor through a proxy.
        self._sock = connection.sock = _with_tls(sock, url.hostname) if url.scheme == "https" else sock
        return connection

    def _resolve(self, host: str, port: int) -> str:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise CannotFetch("its host is unknown") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(self._limits.is_allowed(ipaddress.ip_address(a)) for a in addresses):
            raise CannotFetch("its host is not on the public internet")
        return addresses[0]


def _with_tls(sock: socket.socket, host: str) -> socket.socket:
    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL_CHARS or not url.isascii() or any(c <= " " for c in url):
        raise CannotFetch("its URL is too long, or has characters that a URL cannot have")
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        raise CannotFetch("its URL makes no sense") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port:
        raise CannotFetch("its URL must begin with https:// or http:// and a host")
    if parts.username is not None or parts.password is not None:
        raise CannotFetch("its URL must not have a user or a password")
    return parts
