"""keys.toml: one table a key, written by `axion-llm keys`, read by the servers. Holds hashes, never a key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axion_llm import files
from axion_llm.errors import ConfigError
from axion_llm.models.toml_file import Entry, TomlFile
from axion_llm.security.keys import SCOPES, Key, check_name

_HEADER = "# API keys of axion-llm: names, SHA-256 of the keys, what they may do. See: axion-llm keys --help\n"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"sha256", "scopes", "requests_per_minute", "tokens_per_minute", "created", "tenant"}


def read(path: Path) -> list[Key]:
    """Raises ConfigError, with file and line, for anything it does not understand."""
    file = TomlFile(path)
    for name, value in file.data.items():
        if name != "keys" or not isinstance(value, dict):
            raise file.entry((name,), value).error("not known here; keys are tables: [keys.NAME]")
    return [_key(file, name, value) for name, value in file.data.get("keys", {}).items()]


def write(path: Path, keys: Iterable[Key]) -> None:
    """As a whole or not at all, for its owner's eyes only."""
    text = _HEADER + "".join(_table(key) for key in keys)
    try:
        files.replace(path, text, mode=files.PRIVATE)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


@contextmanager
def changing(path: Path) -> Iterator[list[Key]]:
    """The keys, to be changed in place; written at the end. Whoever else wants to change them waits."""
    try:
        with files.locked(path):
            keys = read(path) if path.exists() else []
            yield keys
            write(path, keys)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be changed: {error.strerror}") from None


def _key(file: TomlFile, name: str, value: Any) -> Key:
    def entry(*keys: str, at: Any = value) -> Entry:
        return file.entry(("keys", name, *keys), at)

    if not isinstance(value, dict):
        raise entry().error("a key is a table: [keys.NAME]")
    for field, given in value.items():
        if field not in _FIELDS:
            raise entry(field, at=given).error(f"not known; there are {', '.join(sorted(_FIELDS))}")
    sha256, scopes = value.get("sha256"), value.get("scopes", ["use"])
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise entry("sha256", at=sha256).error("must be the SHA-256 of a key, 64 hexadecimal digits")
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise entry("scopes", at=scopes).error(f"must be a list of {', '.join(SCOPES)}")
    limits = {}
    for field in ("requests_per_minute", "tokens_per_minute"):
        limits[field] = given = value.get(field, 0)
        if type(given) is not int or given < 0:
            raise entry(field, at=given).error("must be a number, 0 for no limit")
    if not isinstance(tenant := value.get("tenant", ""), str):
        raise entry("tenant", at=tenant).error("must be a name in quotes")
    if tenant:
        check_name(tenant, "tenant")
    created = str(value.get("created", ""))
    return Key(check_name(name), sha256, frozenset(scopes), created=created, group=tenant, **limits)


def _table(key: Key) -> str:
    lines = [f'\n[keys."{key.name}"]', f'sha256 = "{key.sha256}"']
    lines.append(f"scopes = [{', '.join(f'{chr(34)}{s}{chr(34)}' for s in SCOPES if s in key.scopes)}]")
    lines += [f"{f} = {v}" for f in ("requests_per_minute", "tokens_per_minute") if (v := getattr(key, f))]
    if key.group:
        lines.append(f'tenant = "{key.group}"')
    if key.created:
        lines.append(f'created = "{key.created}"')
    return "\n".join(lines) + "\n"
