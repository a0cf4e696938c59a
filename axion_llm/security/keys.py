"""API keys: made at random, kept as their SHA-256 only, compared in constant time.

A plain fast hash is right here, as it would not be for passwords: a key has 256 random bits, so there is no
dictionary to try against its hash, and a slow hash would only make each request (and each wrong key) dear.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from axion_llm.errors import ConfigError

Scope = Literal["use", "metrics", "admin"]
"""use: everything under /v1; metrics: /metrics; admin: these two, and what changes the service."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "axl-"
MIN_SECRET_CHARS = 16  # of a key that a person chose: it can be tried over the network
MAX_SECRET_CHARS = 512

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class Key:
    """What is known of a key; never the key itself. Limits of 0 are none (or the service's default)."""

    name: str
    sha256: str
    scopes: frozenset[Scope]
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    created: str = ""  # a date, ISO 8601
    group: str = ""  # the tenant that `keys new --tenant` has named: its keys trust each other

    @property
    def id(self) -> str:
        """Never that of another key: a name can be given again, a secret is not made twice."""
        return self.sha256

    @property
    def tenant(self) -> str:
        """Whom its requests share caches with."""
        return f"tenant {self.group}" if self.group else f"key {self.id}"

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def find(keys: Iterable[Key], secret: str) -> Key | None:
    """The key that `secret` is. Looks at all of them, so that the time does not tell where one matched."""
    presented, found = digest(secret[: MAX_SECRET_CHARS + 1]), None
    for key in keys:
        if hmac.compare_digest(presented, key.sha256):
            found = key
    return found


def check_name(name: str, what: str = "key name") -> str:
    if not _NAME.fullmatch(name):
        message = f"{what} {name[:80]!r}: use 1 to 64 letters, digits and . _ @ -, beginning with a letter or digit"
        raise ConfigError(message, param="name")
    return name


def from_setting(setting: str, value: str, scopes: Sequence[Scope]) -> list[Key]:
    """The keys of an environment variable: separated by commas, named after it and their number."""
    given = [secret.strip() for secret in value.split(",") if secret.strip()]
    for number, secret in enumerate(given, 1):
        if not MIN_SECRET_CHARS <= len(secret) <= MAX_SECRET_CHARS:
            problem = f"key number {number} must have {MIN_SECRET_CHARS} to {MAX_SECRET_CHARS} characters"
            raise ConfigError(f"{setting}: {problem}; axion-llm keys new makes good ones", param=setting)
    return [Key(f"{setting}-{i}", digest(secret), frozenset(scopes)) for i, secret in enumerate(given, 1)]
