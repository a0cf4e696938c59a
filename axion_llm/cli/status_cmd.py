"""`axion-llm ps` and `memory`: what a running service does, once or live."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from axion_llm.api import status as doc
from axion_llm.cli.service_client import ServiceClient, service_options

_STYLES = {"ready": "green", "loading": "yellow", "failed": "red", "missing": "dim", "available": ""}
_PIPE_WIDTH = 200  # columns when the output is no terminal, so that grep finds whole lines
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _show_options(command: _Command) -> _Command:
    as_json = click.option("--json", "as_json", is_flag=True, help="Print the status as JSON; --watch: one per line.")
    watch = click.option("--watch", "-w", is_flag=True, help="Show it live until Ctrl-C.")
    every = click.option("--interval", default=1.0, type=click.FloatRange(0.2), show_default=True, help="Seconds.")
    return service_options(watch(every(as_json(command))))


@click.command()
@click.option("--all", "-a", "show_all", is_flag=True, help="Models that are not loaded too.")
@_show_options
def ps(show_all: bool, watch: bool, interval: float, as_json: bool, url: str | None, key: str | None) -> None:
    """Show the models that a running service has loaded, and what they do.

    \b
    axion-llm ps
    axion-llm ps --watch                 live, until Ctrl-C
    axion-llm ps --all                   those that are not loaded too
    axion-llm ps --json | jq '.models[] | select(.state == "ready") | .name'

    \b
    RAM       resident memory (RSS) of the model's process, its file's mapped pages included
    KV        tokens in the KV cache; "kept" ones belong to no request, prompts that begin alike use them again
    queue     sequences that wait for a place in the cache, behind those that run
    tokens/s  generated in the last five seconds, all requests together
    """
    client = ServiceClient(url, key)

    def show(status: doc.Status) -> RenderableType:
        return ps_view(status, show_all=show_all)

    _run(lambda: client.status(with_memory=True), show, watch=watch, interval=interval, as_json=as_json)


@click.command()
@_show_options
def memory(watch: bool, interval: float, as_json: bool, url: str | None, key: str | None) -> None:
    """Show where a running service's memory goes, process by process.

    \b
    axion-llm memory
    axion-llm memory --watch
    axion-llm memory --json | jq .totals

    \b
    USS       pages that only this process has: what its end gives back
    PSS       USS and its share of shared pages: sums over processes are right
    RSS       all its resident pages, split into:
    weights   pages of the model's file: mapped, shared, given up by the kernel when memory gets short
    KV        the KV cache; "16-bit KV" is what the same contexts would take as F16
    compute   llama.cpp's buffers for a step and its outputs as far as they are touched, its vocabulary
    other     the interpreter and libraries
    """
    client = ServiceClient(url, key)
    _run(lambda: client.status(with_memory=True), memory_view, watch=watch, interval=interval, as_json=as_json)


def _run(
    ask: Callable[[], doc.Status],
    show: Callable[[doc.Status], RenderableType],
    *,
    watch: bool,
    interval: float,
    as_json: bool,
) -> None:
    if as_json:
        _print_json(ask, interval if watch else None)
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    if not watch:
        console.print(show(ask()))
        return
    try:
        with Live(show(ask()), console=console, auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(interval)
                live.update(show(ask()), refresh=True)
    except KeyboardInterrupt:
        pass


def _print_json(ask: Callable[[], doc.Status], interval: float | None) -> None:
    if interval is None:
        click.echo(msgspec.json.format(doc.encode(ask())))
        return
    try:
        while True:
            click.echo(doc.encode(ask()))
            time.sleep(interval)
    except KeyboardInterrupt:
        pass


# ---- ps


def ps_view(status: doc.Status, *, show_all: bool = False) -> RenderableType:
    shown = [m for m in status.models if show_all or m.state not in ("available", "missing")]
    lines: list[RenderableType] = [_headline(status)]
    lines += [_ps_table(shown)] if shown else ["no model is loaded; a request loads the one it names"]
    lines += [Text(f"{m.name}: {m.error}", style="red") for m in shown if m.error]
    if status.registry_error:
        lines.append(Text(f"models.toml was not read anew: {status.registry_error}", style="red"))
    if status.kernels:
        lines.append(Text(f"computing with {status.kernels}; see axion-llm doctor", style="yellow"))
    return Group(*lines)


def _headline(status: doc.Status) -> Text:
    num_loaded = sum(m.state == "ready" for m in status.models)
    up = _duration(status.uptime_seconds)
    words = f"{status.state}, up {up}, {num_loaded} of at most {status.max_loaded} models loaded"
    return Text(f"{words}, {status.num_requests} requests in flight", style="bold")


def _ps_table(models: list[doc.ModelReport]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "state"):
        table.add_column(column, no_wrap=True)
    for column in ("pid", "RAM", "KV used / total (kept)", "cores", "running", "queue", "last used", "tokens/s"):
        table.add_column(column, no_wrap=True, justify="right")
    for model in models:
        table.add_row(Text(model.name), _state(model), *_ps_cells(model))
    return table


def _state(model: doc.ModelReport) -> Text:
    state = model.state if model.is_answering else f"{model.state}, silent"
    text = Text(state, style=_STYLES[model.state] if model.is_answering else "red")
    return text.append(" pinned", style="cyan") if model.is_pinned else text


def _ps_cells(m: doc.ModelReport) -> list[str]:
    if m.state != "ready":
        waiting = str(m.num_requests) if m.num_requests else "-"
        return ["-", "-", "-", "-", "-", waiting, _ago(m.idle_seconds), "-"]
    in_use = m.kv_used_tokens - m.kv_cached_tokens
    return [
        str(m.pid or "-"),
        decimal(m.memory.process.rss_bytes) if m.memory else "-",
        f"{in_use:,} / {m.kv_total_tokens:,} ({m.kv_cached_tokens:,})",
        str(m.num_threads or "-"),
        str(m.num_running),
        str(m.num_waiting),
        _ago(m.idle_seconds),
        f"{m.tokens_per_second:.1f}" if m.tokens_per_second else "-",
    ]


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{_duration(seconds)} ago" if seconds >= 1 else "now"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# ---- memory


def memory_view(status: doc.Status) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("process", no_wrap=True)
    for column in ("USS", "PSS", "RSS", "weights", "KV", "compute", "other", "16-bit KV"):
        table.add_column(column, no_wrap=True, justify="right")
    for model in status.models:
        if m := model.memory:
            parts = (m.weights_bytes, m.kv_bytes, m.compute_bytes, m.other_bytes, m.kv_16bit_bytes)
            table.add_row(Text(model.name), *_sizes(m.process), *(decimal(part) for part in parts))
    for spare in status.spares:
        table.add_row(Text("spare worker", style="dim"), *_sizes(spare), *["-"] * 5)
    if status.server:
        table.add_row(Text("server", style="dim"), *_sizes(status.server), *["-"] * 5)
    return Group(table, *_memory_lines(status))


def _sizes(process: doc.ProcessMemory) -> list[str]:
    return [decimal(size) for size in (process.uss_bytes, process.pss_bytes, process.rss_bytes)]


def _memory_lines(status: doc.Status) -> list[str]:
    lines = []
    if totals := status.totals:
        lines.append(
            f"\nall processes  {decimal(totals.pss_bytes)} (PSS), {decimal(totals.uss_bytes)} of it theirs alone"
        )
        if totals.kv_bytes:
            saved = 1 - totals.kv_bytes / totals.kv_16bit_bytes
            kv = f"{decimal(totals.kv_bytes)}, at 16 bits {decimal(totals.kv_16bit_bytes)}"
            lines.append(f"KV caches      {kv}: {decimal(totals.kv_saved_bytes)} saved ({saved:.0%})")
    if machine := status.machine:
        available = f"{decimal(machine.available_bytes)} available of {decimal(machine.total_bytes)}"
        limit = machine.cgroup_limit_bytes
        cgroup = f"; cgroup: {decimal(machine.cgroup_used_bytes)} used of {decimal(limit)}" if limit else ""
        lines.append(f"machine        {available}{cgroup}")
    return lines
