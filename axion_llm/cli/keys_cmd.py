"""`axion-llm keys`: make, list and revoke the API keys of the service."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from axion_llm.config import Settings
from axion_llm.errors import BadRequest
from axion_llm.security import keys_file
from axion_llm.security.keys import SCOPES, Key, check_name, digest, new_secret

NAME = click.argument("name")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
LIMIT = click.IntRange(0)


@click.group()
def keys() -> None:
    """Make, list and revoke the keys that clients need.

    \b
    axion-llm keys new alice                        may use the models
    axion-llm keys new ops --scope admin            may also load, unload and look into everything
    axion-llm keys new prometheus --scope metrics   may read /metrics, nothing else
    axion-llm keys list
    axion-llm keys revoke alice

    Without any key the service takes requests from everybody who reaches it, which is this machine only
    unless you say --host. From the first key on, all need one. Changes count within a second, also for servers
    that run.

    The file (~/.config/axion-llm/keys.toml, or AXION_KEYS_FILE) holds hashes, so a lost key cannot be read back:
    revoke it and make a new one. Keys can also come from the environment: AXION_API_KEYS=key1,key2 and
    AXION_ADMIN_KEYS=key3.
    """


@keys.command()
@NAME
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="May be repeated.  [use]")
@click.option("--rpm", type=LIMIT, default=0, help="Requests per minute; 0: the service's own limit.")
@click.option("--tpm", type=LIMIT, default=0, help="Tokens per minute, prompt and answer; 0: the service's.")
@AS_JSON
def new(name: str, scopes: tuple[str, ...], rpm: int, tpm: int, as_json: bool) -> None:
    """Make a key and print it, this one time."""
    store = _Store.open()
    check_name(name)
    if name in [key.name for key in store.keys]:
        raise BadRequest(f"there is a key {name!r} already; revoke it first, or take another name", param="name")
    secret = new_secret()
    allowed = frozenset(scope for scope in SCOPES if scope in (scopes or ("use",)))
    key = Key(name, digest(secret), allowed, rpm, tpm, date.today().isoformat())
    store.write([*store.keys, key])
    if as_json:
        return click.echo(json.dumps({"key": secret, **_row(key)}))
    click.echo(secret)
    click.echo(f"{name}: kept as a hash in {store.path}; this is the only time the key is shown", err=True)


@keys.command("list")
@AS_JSON
def list_(as_json: bool) -> None:
    """Names, scopes and limits; a key itself cannot be shown again."""
    store = _Store.open()
    if as_json:
        return click.echo(json.dumps([_row(key) for key in store.keys], indent=2))
    if not store.keys:
        return click.echo(f"no keys in {store.path}; make one with: axion-llm keys new NAME")
    table = Table("name", "scopes", "requests/min", "tokens/min", "created", box=None, header_style="bold")
    for key in store.keys:
        limits = (str(n) if n else "-" for n in (key.requests_per_minute, key.tokens_per_minute))
        table.add_row(key.name, " ".join(_scopes(key)), *limits, key.created)
    Console(highlight=False).print(table)


@keys.command()
@NAME
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def revoke(name: str, yes: bool) -> None:
    """End a key. Servers that run refuse it within a second."""
    store = _Store.open()
    left = [key for key in store.keys if key.name != name]
    if len(left) == len(store.keys):
        known = ", ".join(key.name for key in store.keys) or "none"
        raise BadRequest(f"there is no key {name!r} in {store.path}. Known: {known}.", param="name")
    if not yes:
        click.confirm(f"Revoke {name}? Whoever uses it is locked out", abort=True)
    store.write(left)
    click.echo(f"{name}: revoked")
    if not left:
        click.echo(f"no key is left: nobody gets in until you make one, or delete {store.path}", err=True)


@dataclass
class _Store:
    path: Path
    keys: list[Key]

    @classmethod
    def open(cls) -> _Store:
        path = Settings.load().keys_file
        return cls(path, keys_file.read(path) if path.exists() else [])

    def write(self, keys: list[Key]) -> None:
        keys_file.write(self.path, keys)


def _scopes(key: Key) -> list[str]:
    return [scope for scope in SCOPES if scope in key.scopes]


def _row(key: Key) -> dict[str, object]:
    return {
        "name": key.name,
        "scopes": _scopes(key),
        "requests_per_minute": key.requests_per_minute or None,
        "tokens_per_minute": key.tokens_per_minute or None,
        "created": key.created or None,
    }
