"""Which Host and Origin a request may name, so that a web page elsewhere cannot use a browser to reach the service.

DNS rebinding: a page of evil.example lets its name point at 127.0.0.1 and asks its "own" server, which is ours. No
rule about origins sees that, but the Host header gives it away. So a service that only this machine reaches and
that asks for no key takes requests only under names that no stranger can own. With keys the page has none.

Cross-site writes: a form or a fetch of any page may post to us without asking, it only cannot read the answer. So
whatever changes something must come from no page at all, from our own, or from an origin that is allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def host_of(header: str) -> str:
    """The name in a Host header, without its port; what is no host gives ''."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_own_name(name: str) -> bool:
    """Names that mean this machine whoever asks: an address has no owner who could let it point elsewhere."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_host_allowed(header: str, allowed: Collection[str]) -> bool:
    """`allowed` adds to the names of this machine; ".example.org" means all below it, "*" any."""
    name = host_of(header)
    if is_own_name(name) or "*" in allowed or name in allowed:
        return True
    return bool(name) and any(a.startswith(".") and name.endswith(a) for a in allowed)


def is_origin_allowed(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether a page of `origin` may change something here, where the request named `host`.

    The scheme is not looked at: behind a proxy that ends TLS our own page is https and we are http.
    """
    return "*" in allowed or origin in allowed or origin.lower().partition("://")[2] == host.lower()
