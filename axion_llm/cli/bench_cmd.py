"""`axion-llm bench`: measurements that print both sides of every comparison."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from axion_llm.bench import serve as bench_serve
from axion_llm.bench.client import BenchError
from axion_llm.bench.servers import Settings, Side, ours, stock
from axion_llm.config import Settings as ServiceSettings
from axion_llm.errors import ServiceError
from axion_llm.models.registry import load_registry, locate


@click.group()
def bench() -> None:
    """Measure: ours and another in turn in one run, medians, both sides printed."""


def find_model(name: str) -> Path:
    service = ServiceSettings.load()
    path = locate(load_registry(service).get(name), service)
    if path is None:
        raise ServiceError(f"{name} is not on this machine: axion-llm pull {name}")
    return path


@bench.command("serve")
@click.option("--vs", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Stock llama-server binary.")
@click.option("--kernels-off", is_flag=True, help="A third side: our server with AXION_KERNELS=off.")
@click.option("--model", "name", default="smollm2", show_default=True, help="A model of the registry.")
@click.option("--streams", default="1,4,16", show_default=True, help="Numbers of parallel streams.")
@click.option("--rounds", default=5, show_default=True, help="How often each side is measured.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def serve(
    vs: Path | None, kernels_off: bool, name: str, streams: str, rounds: int, threads: int, as_json: bool
) -> None:
    """Streams in parallel: tokens/s, time to first token, gaps.

    \b
    scripts/build --stock       builds the peer, .build/stock/bin/llama-server
    axion-llm bench serve --vs .build/stock/bin/llama-server
    """
    path = find_model(name)

    def sides(settings: Settings, directory: Path) -> list[Side]:
        found = [ours(settings, directory)]
        if kernels_off:
            found.append(ours(settings, directory, "axion-kernels-off", {"AXION_KERNELS": "off"}))
        return [*found, stock(settings, vs)] if vs else found

    console = Console(stderr=True)
    counts = [int(n) for n in streams.split(",")]
    try:
        points = bench_serve.run(sides, Settings(path, threads=threads), counts, rounds, console.print)
    except BenchError as e:
        raise ServiceError(str(e)) from None
    records = bench_serve.as_records(points)
    if as_json:
        click.echo(json.dumps(records, indent=2))
        return
    print_table(records)


COLUMNS = {
    "streams": ("streams", "{}"),
    "side": ("side", "{}"),
    "tokens/s": ("tokens_per_second", "{:.1f}"),
    "ratio": ("ratio", "{:.2f}"),
    "TTFT p50": ("ttft_p50_ms", "{:.0f} ms"),
    "TTFT p95": ("ttft_p95_ms", "{:.0f} ms"),
    "gap p50": ("gap_p50_ms", "{:.1f} ms"),
    "gap max": ("gap_max_ms", "{:.0f} ms"),
    "outside decode": ("outside_ms", "{:.2f} ms"),
    "share": ("outside_share", "{:.1%}"),
}


def print_table(records: list[dict[str, Any]]) -> None:
    table = Table(*COLUMNS)
    for r in records:
        table.add_row(*("-" if r[key] is None else form.format(r[key]) for key, form in COLUMNS.values()))
    Console(width=140).print(table)


@bench.command("model")
@click.option("--model", "name", default="smollm2", show_default=True, help="A model of the registry.")
@click.option("--depths", default="0,2048,6144", show_default=True, help="Tokens in the cache before each test.")
@click.option("--kv", "kv_types", default="q8_0,f16", show_default=True, help="Types of KV cache.")
@click.option("--rounds", default=3, show_default=True, help="How often each side is measured.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def model(name: str, depths: str, kv_types: str, rounds: int, threads: int, as_json: bool) -> None:
    """Prefill (pp512) and decode (tg32) at depths, our kernels on and off in turn in one process."""
    from axion_llm.bench.model import measure  # loads the native libraries

    kinds: list[Any] = kv_types.split(",")
    counts = [int(d) for d in depths.split(",")]
    rows = measure(find_model(name), kinds, counts, rounds, threads, Console(stderr=True).print)
    if as_json:
        click.echo(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=2))
        return
    table = Table("test", "KV", "depth", "on, tokens/s", "off, tokens/s", "ratio")
    for row in rows:
        table.add_row(row.test, row.kv_type, str(row.depth), f"{row.on:.1f}", f"{row.off:.1f}", f"{row.ratio:.2f}")
    Console().print(table)
