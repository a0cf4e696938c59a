"""`axion-llm config`: what is set, by what, and whether a service would start with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from axion_llm.cli.options import models_option
from axion_llm.config import Settings, layers, unknown_variables
from axion_llm.errors import AxionError, ConfigError
from axion_llm.models.registry import load_registry

_SECRETS = ("api_keys", "admin_keys")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group()
def config() -> None:
    """Look at the settings, and check them before a start.

    \b
    axion-llm config check        everything that a start would read: is it right?
    axion-llm config list         all settings, their values and where they come from

    A setting comes from the option of serve, else from the environment (AXION_STANDARD_PORT=9000), else from
    ~/.config/axion-llm/config.toml (or AXION_CONFIG_FILE), else it has its default:

    \b
    standard_port = 9000
    warm = 1
    cors_origins = ["https://my.app"]
    """


@config.command("list")
@as_json_option
def list_(as_json: bool) -> None:
    """All settings with their values and sources."""
    rows = list(_rows())
    if as_json:
        return click.echo(json.dumps(rows, indent=2))
    table = Table("setting", "value", "from", box=None, header_style="bold")
    for row in rows:
        style = "" if row["from"] == "default" else "bold"
        table.add_row(row["name"], Text(str(row["value"]), style), Text(row["from"], style))
    Console(highlight=False, soft_wrap=True).print(table)


@config.command()
@models_option
@as_json_option
def check(models_file: Path | None, as_json: bool) -> None:
    """Read everything that a service reads at its start, and say what is wrong with it.

    Settings, registry of models, API keys, certificate. Exit code 2 when a start would fail; warnings do not
    change it.
    """
    errors, warnings = _problems(models_file)
    if as_json:
        click.echo(json.dumps({"ok": not errors, "errors": errors, "warnings": warnings}, indent=2))
    else:
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        if not errors:
            click.echo("the configuration is right")
    if errors:
        if as_json:
            raise click.exceptions.Exit(2)
        raise ConfigError("\nerror: ".join(errors))


def _problems(models_file: Path | None) -> tuple[list[str], list[str]]:
    warnings = [f"{name}: no such setting, it changes nothing" for name in unknown_variables()]
    try:
        settings = Settings.load({"models_file": models_file})
    except ConfigError as error:
        return [error.message], warnings
    errors = [problem for part in (_registry, _tls, _keys) if (problem := _tried(part, settings))]
    return errors, warnings + list(_warnings(settings, has_errors=bool(errors)))


def _tried(part: Callable[[Settings], object], settings: Settings) -> str | None:
    try:
        part(settings)
    except AxionError as error:
        return error.message
    return None


def _registry(settings: Settings) -> object:
    return load_registry(settings)


def _tls(settings: Settings) -> object:
    from axion_llm.servers.tls import tls_options

    return tls_options(settings)


def _keys(settings: Settings) -> object:
    from axion_llm.security.keyring import KeyRing

    return KeyRing(settings)


def _warnings(settings: Settings, *, has_errors: bool) -> Iterator[str]:
    from axion_llm.security.keyring import KeyRing

    if has_errors:
        return
    if not settings.is_loopback and not KeyRing(settings).is_asking:
        yield f"host {settings.host} without API keys: everybody who reaches this machine may use the models"
    if not settings.is_loopback and settings.tls_cert is None:
        yield f"host {settings.host} without TLS: keys and texts cross the network in the clear"
    if "*" in settings.cors_origins:
        yield "cors_origins *: any web page that a browser here opens may use the service"


def _rows() -> Iterator[dict[str, Any]]:
    settings = Settings.load()
    sources = {name: layer.source for layer in layers() for name in layer.values}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in _SECRETS and value:
            value = "(hidden)"
        if isinstance(value, Path):
            value = str(value)
        yield {
            "name": field.name,
            "value": list(value) if isinstance(value, tuple) else value,
            "from": sources.get(field.name, "default"),
        }
