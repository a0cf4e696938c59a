"""`axion-llm models`, `pull` and `rm`: which models there are, fetching them, freeing their disk space."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from axion_llm.cli.completion_cmd import complete_model
from axion_llm.cli.options import models_option
from axion_llm.config import VISION_LIBRARY, Settings, library_dir
from axion_llm.errors import BadRequest, DownloadError, ModelLoadError
from axion_llm.models.gguf_header import check_file
from axion_llm.models.registry import Registry, load_registry, locate
from axion_llm.models.spec import ModelSpec

# models.fetch is imported where it is used: huggingface_hub takes longer to import than `models` to answer.

_STATE_STYLES = {"available": "green", "missing": "dim", "damaged": "red"}
_PIPE_WIDTH = 200  # columns when the output is no terminal: a line for each model, so that grep finds all of it


@click.command()
@models_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def models(models_file: Path | None, as_json: bool) -> None:
    """List the models that can be served, and which of them are on this machine.

    \b
    axion-llm models
    axion-llm models --models ./models.toml
    axion-llm models --json | jq -r '.[] | select(.state == "available") | .name'

    \b
    available   its file is here and whole
    missing     not here yet: axion-llm pull NAME
    damaged     here, but cut short or no GGUF file; the reason is printed

    Add models or change them in ~/.config/axion-llm/models.toml:

    \b
    [models.mine]
    path = "~/models/mine-Q4_K_M.gguf"
    """
    settings, registry = _load(models_file)
    rows = [_row(spec, settings) for spec in registry]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table(rows)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_model)
@models_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each model instead of text.")
def pull(names: tuple[str, ...], models_file: Path | None, as_json: bool) -> None:
    """Download models from the hub, checked by their SHA-256.

    \b
    axion-llm pull qwen_coder
    axion-llm pull phi4_fast gemma3_multimodal
    HF_TOKEN=hf_... axion-llm pull my_gated_model       one whose licence you accepted
    HF_ENDPOINT=https://hub.example axion-llm pull ...  from a mirror

    Ctrl-C or a broken line lose nothing: the same command goes on where it ended. A model that is here
    already is not downloaded again. Files go to ~/.local/share/axion-llm/models; another folder:
    AXION_MODELS_DIR=/data/models.
    """
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its warnings would cut through the progress bar; errors are ours to tell
    settings, registry = _load(models_file)
    errors: list[DownloadError] = []
    for spec in [registry.get(name) for name in dict.fromkeys(names)]:
        try:
            _report_pull(*_pull(spec, settings), as_json)
            if spec.mmproj and not (library_dir() / VISION_LIBRARY).exists():
                click.echo(f"{spec.name} takes images once their library is built: scripts/build", err=True)
        except DownloadError as error:
            errors.append(error)
    if errors:
        raise DownloadError("\n".join(error.message for error in errors))


@click.command()
@click.argument("name", shell_complete=complete_model)
@models_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rm(name: str, models_file: Path | None, yes: bool) -> None:
    """Delete a model's downloaded files.

    \b
    axion-llm rm qwen_coder
    axion-llm rm --yes qwen_coder

    Only what `pull` wrote is deleted: never a file of your own, nor a model that comes with a Python package.
    The model stays in the list and can be pulled again.
    """
    from axion_llm.models import fetch

    settings, registry = _load(models_file)
    spec = registry.get(name)
    files = fetch.pulled_files(spec, settings)
    if not files:
        raise BadRequest(_nothing_to_remove(spec, settings), param="name")
    size = decimal(sum(path.stat().st_size for path in files))
    if not yes:
        click.confirm(f"Delete {', '.join(map(str, files))} ({size})?", abort=True)
    fetch.remove(spec, settings)
    click.echo(f"{name}: {size} freed")


def _load(models_file: Path | None) -> tuple[Settings, Registry]:
    settings = Settings.load({"models_file": models_file})
    return settings, load_registry(settings)


# ---- models


def _row(spec: ModelSpec, settings: Settings) -> dict[str, Any]:
    path = locate(spec, settings)
    state, error = "missing" if path is None else "available", None
    context = spec.n_ctx
    if path is not None:
        try:
            header = check_file(path)
            context = context or header.n_ctx_train
        except ModelLoadError as bad:
            state, error = "damaged", bad.message
    return {
        "name": spec.name,
        "state": state,
        "path": None if path is None else str(path),
        "size_bytes": spec.size_bytes if path is None else path.stat().st_size,
        "context": context,
        "parallel": spec.n_seq_max,
        "kv_type": spec.kv_type,
        "roles": list(spec.roles),
        "description": spec.description,
        "error": error,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "state"):
        table.add_column(column, no_wrap=True)
    for column in ("size", "context"):
        table.add_column(column, no_wrap=True, justify="right")
    for column in ("roles", "description"):
        table.add_column(column)
    for row in rows:
        size = decimal(row["size_bytes"]) if row["size_bytes"] else "-"
        state = Text(row["state"], style=_STATE_STYLES[row["state"]])
        context = f"{row['context']:,}" if row["context"] else "-"
        table.add_row(Text(row["name"]), state, size, context, ", ".join(row["roles"]), Text(row["description"]))
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    console.print(table)
    for row in rows:
        if row["error"]:
            click.echo(f"\n{row['name']}: {row['error']}")
    if any(row["state"] == "missing" for row in rows):
        click.echo("\nGet a missing one with: axion-llm pull NAME")


# ---- pull


def _pull(spec: ModelSpec, settings: Settings) -> tuple[ModelSpec, Path, bool]:
    """The model, where it is, and whether it had to be downloaded."""
    from axion_llm.models import fetch

    if fetch.is_pulled(spec, settings):
        return spec, fetch.pull(spec, settings, lambda done, total: None), False
    with _bar(spec.name) as advance:
        return spec, fetch.pull(spec, settings, advance), True


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """On stderr, so that what is printed on stdout can be used by a script."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)

        def advance(done: int, total: int) -> None:
            if progress.tasks[task].total is None:  # what an earlier pull brought is not this one's speed
                progress.reset(task, total=total, completed=done)
            description = f"{name}: checking" if done == total else name
            progress.update(task, completed=done, description=description)

        yield advance


def _report_pull(spec: ModelSpec, path: Path, was_downloaded: bool, as_json: bool) -> None:
    if as_json:
        record = {
            "name": spec.name,
            "path": str(path),
            "size_bytes": path.stat().st_size,
            "downloaded": was_downloaded,
        }
        click.echo(json.dumps(record))
    else:
        click.echo(f"{spec.name}: {'downloaded' if was_downloaded else _why_here(spec)}: {path}")


def _why_here(spec: ModelSpec) -> str:
    if spec.source.package is not None:
        return f"needs no pull, it comes with the Python package {spec.source.package}"
    return "already here" if spec.source.repo is not None else "needs no pull, it is a file of this machine"


# ---- rm


def _nothing_to_remove(spec: ModelSpec, settings: Settings) -> str:
    if (package := spec.source.package) is not None:
        return f"{spec.name} comes with the Python package {package}; rm deletes only what pull wrote."
    if (path := locate(spec, settings)) is not None:
        return f"{spec.name}: {path} was not written by pull. If you do not need it, delete it yourself."
    return f"{spec.name} is not on this machine: there is nothing to delete."
