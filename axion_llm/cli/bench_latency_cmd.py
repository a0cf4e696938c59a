"""`axion-llm bench latency`, `compare` and `report`: how long answers take, what a change did, all on one page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from axion_llm import __version__
from axion_llm.bench import latency as bench
from axion_llm.bench.client import BenchError
from axion_llm.bench.report import page
from axion_llm.bench.servers import Settings, ours, running, stock
from axion_llm.cli.bench_cmd import find_model
from axion_llm.errors import ServiceError

file_argument = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("latency")
@click.option("--url", help="A service that runs, such as http://127.0.0.1:8082; without it one is started.")
@click.option("--key", envvar="AXION_KEY", help="An API key, if that service has keys.")
@click.option("--vs", type=file_argument, help="Stock llama-server binary: a second side.")
@click.option("--kernels-off", is_flag=True, help="A further side: our server with AXION_KERNELS=off.")
@click.option("--model", "name", default="smollm2", show_default=True, help="A model of the registry, or of --url.")
@click.option("--requests", default=12, type=click.IntRange(1, 1000), show_default=True, help="In each round.")
@click.option("--concurrency", default=2, type=click.IntRange(1, bench.MAX_CONCURRENCY), show_default=True)
@click.option("--rounds", default=2, type=click.IntRange(1), show_default=True)
@click.option("--seconds", default=90.0, show_default=True, help="Nothing is sent after that.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for bench compare.")
def latency(
    url: str | None,
    key: str | None,
    vs: Path | None,
    kernels_off: bool,
    name: str,
    requests: int,
    concurrency: int,
    rounds: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure how long answers take, without ever overloading the server.

    A few requests at a time, short to long ones, the same for each side and in turn. A server that says it is full is
    left alone for a while; one that is not healthy is not measured at all.

    \b
    axion-llm bench latency                                   our server, started for it
    axion-llm bench latency --url http://127.0.0.1:8082       a service in use
    axion-llm bench latency --vs .build/stock/bin/llama-server
    axion-llm bench latency --json > before.json              ... and after the change > after.json
    axion-llm bench compare before.json after.json
    """
    if url and (vs or kernels_off):
        raise click.UsageError("--url measures a service that runs; the other sides are started here")
    load = bench.Workload(name if url else "bench", requests, concurrency, rounds, seconds)
    say = Console(stderr=True).print
    try:
        if url:
            results = asyncio.run(_measure_running(url.rstrip("/").removesuffix("/v1") + "/v1", load, key, say))
        else:
            results = asyncio.run(_measure_own(find_model(name), vs, kernels_off, load, say))
    except BenchError as error:
        raise ServiceError(str(error)) from None
    if as_json:
        click.echo(bench.to_json(results, load, machine()))
    else:
        print_results(results)


async def _measure_running(url: str, load: bench.Workload, key: str | None, say: bench.Say) -> list[bench.Result]:
    if not await bench.is_healthy(url):
        raise BenchError(f"{url}: not healthy, or nobody there: it is left alone")
    return await bench.measure({"service": url}, load, say, key)


async def _measure_own(
    path: Path, vs: Path | None, kernels_off: bool, load: bench.Workload, say: bench.Say
) -> list[bench.Result]:
    settings = Settings(path, threads=len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sides = [ours(settings, directory)]
        if kernels_off:
            sides.append(ours(settings, directory, "axion-kernels-off", {"AXION_KERNELS": "off"}))
        if vs:
            sides.append(stock(settings, vs))
        async with contextlib.AsyncExitStack() as stack:
            urls = {side.name: await stack.enter_async_context(running(side)) for side in sides}
            warm_up = bench.Workload(load.model, 1, 1, 1)
            await bench.measure(urls, warm_up, lambda _: None)  # loads the model
            return await bench.measure(urls, load, say)


@click.command("compare")
@click.argument("before", type=file_argument)
@click.argument("after", type=file_argument)
@click.option("--before-side", help="Of the first file, if it has several.  [its first]")
@click.option("--after-side", help="Of the second file.  [its first]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(before: Path, after: Path, before_side: str | None, after_side: str | None, as_json: bool) -> None:
    """Compare two results of `bench latency --json`: before a change and after it.

    Only a comparison on one machine, with the same workload, says anything; both sides in one run say most:

    \b
    axion-llm bench latency --kernels-off --json > run.json
    axion-llm bench compare run.json run.json --before-side axion-kernels-off --after-side axion
    """
    try:
        (old, old_load), (new, new_load) = bench.read(before, before_side), bench.read(after, after_side)
    except BenchError as error:
        raise ServiceError(str(error)) from None
    changes = bench.compare(old, new)
    if as_json:
        click.echo(json.dumps([asdict(c) | {"percent": c.percent} for c in changes], indent=2))
        return
    if old_load != new_load:
        click.echo("warning: the workloads differ, so the figures cannot be compared", err=True)
    table = Table("figure", f"before ({old.side})", f"after ({new.side})", "change")
    for c in changes:
        style = "green" if c.is_better else "red"
        table.add_row(c.what, f"{c.before:.3f} {c.unit}", f"{c.after:.3f} {c.unit}", f"[{style}]{c.percent:+.1f}%[/]")
    Console(width=None if Console().is_terminal else 120).print(table)


@click.command("report")
@click.argument("files", nargs=-1, required=True, type=file_argument)
@click.option("--title", default="What was measured", show_default=True)
def report(files: tuple[Path, ...], title: str) -> None:
    """Write one Markdown page from the JSON results of any benchmarks.

    \b
    axion-llm bench kernels --quick --json > kernels.json
    axion-llm bench serve --vs .build/stock/bin/llama-server --json > serve.json
    axion-llm bench latency --vs .build/stock/bin/llama-server --json > latency.json
    axion-llm bench report kernels.json serve.json latency.json > report.md
    """
    try:
        click.echo(page(files, title, machine()), nl=False)
    except BenchError as error:
        raise ServiceError(str(error)) from None


def print_results(results: list[bench.Result]) -> None:
    table = Table(
        "side", "requests", "deferred", "average", "std. dev.", "median", "p95", "TTFT", "max gap", "tokens/s"
    )
    for r in results:
        times = (r.mean_seconds, r.stdev_seconds, r.p50_seconds, r.p95_seconds, r.ttft_p50_seconds, r.gap_max_seconds)
        cells = [f"{t:.3f} s" for t in times]
        table.add_row(r.side, str(r.num_requests), str(r.num_deferred), *cells, f"{r.tokens_per_second:.1f}")
    Console(width=140).print(table)


def machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    return {
        "architecture": platform.machine(),
        "cores": cores,
        "python": platform.python_version(),
        "axion": __version__,
    }
