"""`axion-llm keys`: make, list and revoke the API keys of the service."""

from __future__ import annotations

import json
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
@click.option("--tenant", default="", help="Keys of one tenant share the prefix cache: they can read it out.")
@AS_JSON
def new(name: str, scopes: tuple[str, ...], rpm: int, tpm: int, tenant: str, as_json: bool) -> None:
    """Make a key and print it, this one time."""
    check_name(name)
    if tenant:
        check_name(tenant, "tenant")
    secret = new_secret()
    allowed = frozenset(scope for scope in SCOPES if scope in (scopes or ("use",)))
    key = Key(name, digest(secret), allowed, rpm, tpm, date.today().isoformat(), tenant)
    path = Settings.load().keys_file
    with keys_file.changing(path) as known:
        if name in [other.name for other in known]:
            raise BadRequest(f"there is a key {name!r} already; revoke it first, or take another name", param="name")
        known.append(key)
    if as_json:
        return click.echo(json.dumps({"key": secret, **_row(key)}))
    click.echo(secret)
    click.echo(f"{name}: kept as a hash in {path}; this is the only time the key is shown", err=True)


@keys.command("list")
@AS_JSON
def list_(as_json: bool) -> None:
    """Names, scopes and limits; a key itself cannot be shown again."""
    path = Settings.load().keys_file
    known = keys_file.read(path) if path.exists() else []
    if as_json:
        return click.echo(json.dumps([_row(key) for key in known], indent=2))
    if not known:
        return click.echo(f"no keys in {path}; make one with: axion-llm keys new NAME")
    table = Table("name", "scopes", "requests/min", "tokens/min", "created", "tenant", box=None, header_style="bold")
    for key in known:
        limits = (str(n) if n else "-" for n in (key.requests_per_minute, key.tokens_per_minute))
        table.add_row(key.name, " ".join(_scopes(key)), *limits, key.created, key.group)
    Console(highlight=False).print(table)


@keys.command()
@NAME
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def revoke(name: str, yes: bool) -> None:
    """End a key. Servers that run refuse it within a second."""
    path = Settings.load().keys_file
    _check_known(path, name, keys_file.read(path) if path.exists() else [])
    if not yes:
        click.confirm(f"Revoke {name}? Whoever uses it is locked out", abort=True)
    with keys_file.changing(path) as known:  # and nobody waits for an answer
        _check_known(path, name, known)
        known[:] = [key for key in known if key.name != name]
    click.echo(f"{name}: revoked")
    if not known:
        click.echo(f"no key is left: nobody gets in until you make one, or delete {path}", err=True)


def _check_known(path: Path, name: str, known: list[Key]) -> None:
    if name not in [key.name for key in known]:
        names = ", ".join(key.name for key in known) or "none"
        raise BadRequest(f"there is no key {name!r} in {path}. Known: {names}.", param="name")


def _scopes(key: Key) -> list[str]:
    return [scope for scope in SCOPES if scope in key.scopes]


def _row(key: Key) -> dict[str, object]:
    return {
        "name": key.name,
        "scopes": _scopes(key),
        "requests_per_minute": key.requests_per_minute or None,
        "tokens_per_minute": key.tokens_per_minute or None,
        "created": key.created or None,
        "tenant": key.group or None,
    }
