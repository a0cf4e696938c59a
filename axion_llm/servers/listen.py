"""The sockets of the ports, bound before anything is loaded: a port that is taken ends the start at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from axion_llm.config import ENV_PREFIX, Settings
from axion_llm.errors import ConfigError
from axion_llm.servers.profile import Profile

BACKLOG = 2048


def listen_all(settings: Settings, profiles: Sequence[Profile]) -> list[socket.socket]:
    """One listening socket for each port, or a ConfigError and none at all."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(_listen(settings, profile)) for profile in profiles]
        opened.pop_all()
    return sockets


def url(sock: socket.socket, scheme: str = "http") -> str:
    """Where a client on this machine reaches it; the port is the real one, also when 0 was asked for."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _listen(settings: Settings, profile: Profile) -> socket.socket:
    port: int = getattr(settings, profile.port_setting)
    family, address = _resolve(settings.host, port)
    # With its protocol named: only then does asyncio turn Nagle off, which costs 40 ms in each request.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)  # now, not only when the server starts: another process may have bound it as well
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise _explain(exc, settings.host, port, profile) from exc
    return sock


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigError(f"host = {host!r}: no such address; see --host", param="host") from exc
    best = next((f for f in found if f[0] is socket.AF_INET), found[0])
    return best[0], best[4]


def _explain(exc: OSError, host: str, port: int, profile: Profile) -> ConfigError:
    setting = profile.port_setting
    choose = f"choose another with {profile.port_option} (or {ENV_PREFIX}{setting.upper()}); 0 takes any free one"
    if exc.errno == errno.EADDRINUSE:
        message = f"port {port} of {host} is already in use: stop what runs there, or {choose}"
        return ConfigError(message, param=setting)
    if exc.errno == errno.EACCES:
        return ConfigError(f"port {port} needs special rights: {choose}", param=setting)
    if exc.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"host = {host!r}: not an address of this machine; see --host", param="host")
    return ConfigError(f"port {port} of {host}: {exc.strerror}; {choose}", param=setting)
