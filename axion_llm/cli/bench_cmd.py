"""`axion-llm bench`: measurements that print both sides of every comparison."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from axion_llm.bench import serve as bench_serve
from axion_llm.bench.client import BenchError
from axion_llm.bench.scenarios import SCENARIOS, Row
from axion_llm.bench.servers import Settings, Side, ours, stock
from axion_llm.config import Settings as ServiceSettings
from axion_llm.errors import ServiceError
from axion_llm.models.registry import load_registry, locate

if TYPE_CHECKING:
    from axion_llm.bench.kernels import Report


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
@click.option("--graphs-off", is_flag=True, help="A further side: our server with llama.cpp's graph reuse off.")
@click.option(
    "--scenarios",
    default="streams,stall,turns,speculation",
    show_default=True,
    help=f"Of streams, {', '.join(SCENARIOS)}; graphs takes minutes.",
)
@click.option("--model", "name", default="smollm2", show_default=True, help="A model of the registry.")
@click.option("--streams", default="1,4,16", show_default=True, help="Numbers of parallel streams.")
@click.option("--rounds", default=5, show_default=True, help="How often each side is measured.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def serve(
    vs: Path | None,
    kernels_off: bool,
    graphs_off: bool,
    scenarios: str,
    name: str,
    streams: str,
    rounds: int,
    threads: int,
    as_json: bool,
) -> None:
    """Serving, ours and the peer in turn: throughput, gaps, time to first token.

    \b
    streams      parallel streams: tokens/s, time to first token, gaps
    stall        three streams, and then a prompt of 2,400 tokens: the longest silence
    turns        a chat of 2,000 tokens: time to first token of its first and its second turn
    speculation  a text to be repeated: speed with and without guesses from the prompt
    graphs       share of decode steps that use llama.cpp's graph again, up to 8192 tokens
    grammar      seven plain streams, beside a plain one and beside one that follows a JSON schema

    \b
    scripts/build --stock       builds the peer, .build/stock/bin/llama-server
    axion-llm bench serve --vs .build/stock/bin/llama-server
    """
    path = find_model(name)

    def sides(settings: Settings, directory: Path) -> list[Side]:
        found = [ours(settings, directory)]
        if kernels_off:
            found.append(ours(settings, directory, "axion-kernels-off", {"AXION_KERNELS": "off"}))
        if graphs_off:
            found.append(ours(settings, directory, "axion-graphs-off", {"LLAMA_GRAPH_REUSE_DISABLE": "1"}))
        return [*found, stock(settings, vs)] if vs else found

    console = Console(stderr=True)
    counts = [int(n) for n in streams.split(",")]
    chosen = scenarios.split(",")
    if unknown := set(chosen) - {"streams", *SCENARIOS}:
        raise click.BadParameter(f"no such scenario: {', '.join(unknown)}", param_hint="--scenarios")
    try:
        points, rows = bench_serve.run(sides, Settings(path, threads=threads), counts, chosen, rounds, console.print)
    except BenchError as e:
        raise ServiceError(str(e)) from None
    records = bench_serve.as_records(points)
    if as_json:
        click.echo(json.dumps({"streams": records, "scenarios": [asdict(row) for row in rows]}, indent=2))
        return
    if records:
        print_table(records)
    if rows:
        print_rows(rows)


def print_rows(rows: list[Row]) -> None:
    """One line for each figure, one column for each side, and the ratio of the first side to the last."""
    sides = list(dict.fromkeys(row.side for row in rows))
    table = Table("scenario", "figure", *sides, *([f"{sides[0]} / {sides[-1]}"] if len(sides) > 1 else []))
    for scenario, what in dict.fromkeys((row.scenario, row.what) for row in rows):
        found = {row.side: row for row in rows if (row.scenario, row.what) == (scenario, what)}
        cells = [f"{found[s].value:.3f} {found[s].unit}" if s in found else "-" for s in sides]
        if len(sides) > 1:
            first, last = found.get(sides[0]), found.get(sides[-1])
            cells.append(f"{first.value / last.value:.3f}" if first and last and last.value else "-")
        table.add_row(scenario, what, *cells)
    Console(width=140).print(table)


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
@click.option("--whole-prompt", default=6144, show_default=True, help="A prompt of this length, once; 0: none.")
@click.option("--rounds", default=3, show_default=True, help="How often each side is measured.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def model(name: str, depths: str, kv_types: str, whole_prompt: int, rounds: int, threads: int, as_json: bool) -> None:
    """Prefill (pp512) and decode (tg32) at depths, our kernels on and off in turn in one process.

    'ratio' is on against off on the same cache, 'to F16' on against off with an F16 cache. The whole prompt takes stock
    some minutes on an 8-bit cache: --whole-prompt 0 leaves it out.
    """
    from axion_llm.bench.model import against_f16, measure  # loads the native libraries

    kinds: list[Any] = kv_types.split(",")
    counts = [int(d) for d in depths.split(",")]
    say = Console(stderr=True).print
    rows = measure(find_model(name), kinds, counts, rounds, threads, say, whole_prompt=whole_prompt)
    if as_json:
        click.echo(json.dumps([asdict(r) | {"ratio": r.ratio, "to_f16": against_f16(r, rows)} for r in rows], indent=2))
        return
    table = Table("test", "KV", "depth", "on, tokens/s", "off, tokens/s", "ratio", "to F16", "barriers")
    for row in rows:
        to_f16 = against_f16(row, rows)
        figures = (f"{row.on:.1f}", f"{row.off:.1f}", f"{row.ratio:.2f}", "-" if to_f16 is None else f"{to_f16:.2f}")
        barriers = f"{row.barriers_on:.0f}/{row.barriers_off:.0f}"
        table.add_row(row.test, row.kv_type, str(row.depth), *figures, barriers)
    Console().print(table)


@bench.command("kernels")
@click.option("--op", help="Only these operations, with commas: mul_mat,flash_attn,soft_max …")
@click.option("--filter", "text", help="Only lines that contain this text, as 'q4_K 4096x14336' or 'D=128'.")
@click.option("--quick", is_flag=True, help="Fewer types and shapes: about half a minute.")
@click.option("--rounds", default=3, show_default=True, help="How often each side is measured.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the peaks and what is left to upstream.")
def kernels(op: str | None, text: str | None, quick: bool, rounds: int, threads: int, as_json: bool) -> None:
    """Every operation of ours against upstream's, in turn in one process, on layers of 4B to 8B models.

    Rates are medians; 'of peak' is our share of what this machine does in a loop of nothing but multiply-adds (int8
    dots, memory reads). Operations on rows run in the caches and have no such peak; 'to others' is ours against NumPy's
    OpenBLAS, or against scalar code with the C library's functions. Lines that no kernel of ours takes are left out and
    counted.

    \b
    axion-llm bench kernels --quick
    axion-llm bench kernels --op flash_attn --filter 'D=128'
    axion-llm bench kernels --json > kernels.json
    """
    from axion_llm.bench import kernels as bench_kernels  # loads the native libraries

    cases = bench_kernels.select(op, text, quick)
    if not cases:
        raise click.UsageError("no operation is called that; run without --op and --filter to see all")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        report = bench_kernels.measure(
            cases, threads, rounds, lambda case, _: progress.update(task, advance=1, description=case.op)
        )
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        print_kernels(report)
    if wrong := [f"{row.op} {row.case}" for row in report.rows if not row.agrees]:
        raise ServiceError(f"ours and upstream's results differ by more than rounding: {'; '.join(wrong)}")


def print_kernels(report: Report) -> None:
    table = Table("operation", "case", "ours, G/s", "stock, G/s", "unit", "ratio", "of peak", "to others")
    for row in report.rows:
        share = "-" if row.share is None else f"{row.share:.0%}"
        others = "" if row.to_rival is None else f"{row.to_rival:.2f} {row.rival}"
        cells = (f"{row.ours / 1e9:.1f}", f"{row.stock / 1e9:.1f}", row.unit, f"{row.ratio:.2f}", share)
        table.add_row(row.op, row.case, *cells, others)
    console = Console(width=132)
    console.print(table)
    peaks = ", ".join(f"{kind} {value / 1e9:.0f}" for kind, value in report.peaks.items() if value)
    console.print(f"{report.isa}, {report.threads} threads; peaks in G/s (operations, bytes read): {peaks}")
    for row in report.rows:
        if row.errors:
            ours, stock = row.errors
            console.print(f"{row.case}: they differ; against double, ours is off by {ours:.1e}, stock by {stock:.1e}")
    if report.not_taken:
        console.print(f"{len(report.not_taken)} cases are left to upstream: --json names them")


@bench.command("quality")
@click.option("--model", "name", default="smollm2", show_default=True, help="A model of the registry.")
@click.option("--text", "text_file", type=click.Path(path_type=Path, exists=True), help="Instead of Python's manual.")
@click.option("--tokens", default=4096, show_default=True, help="How much of the text.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quality(name: str, text_file: Path | None, tokens: int, threads: int, as_json: bool) -> None:
    """Perplexity and KL divergence: our kernels against stock, an 8-bit cache against F16.

    'by kernels' is the change of perplexity against stock on the same cache (limit 0.1%), 'by cache' that against an
    F16 cache with the same kernels (limit 0.5%), each with its standard error. KL divergence is from stock with an
    F16 cache, in nats. Exit code 1 when a limit is exceeded by more than two standard errors.
    """
    from axion_llm.bench import quality as bench_quality  # loads the native libraries

    text = text_file.read_text() if text_file else bench_quality.default_text()
    rows = bench_quality.measure(find_model(name), text, tokens, threads, Console(stderr=True).print)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        table = Table("kernels", "KV", "perplexity", "by kernels", "by cache", "KL mean", "KL p99", "same choice")
        for r in rows:
            changes = ("-" if c is None else f"{c.value:+.2%} ± {c.error:.2%}" for c in (r.by_kernels, r.by_cache))
            kl = (f"{r.kl_mean:.5f}", f"{r.kl_p99:.5f}", f"{r.same_choice:.2%}")
            table.add_row(r.kernels, r.kv_type, f"{r.perplexity:.4f}", *changes, *kl)
        Console(width=120).print(table)
    if failed := [f"{r.kernels} {r.kv_type}" for r in rows if not r.passes]:
        raise ServiceError(f"perplexity changed by more than its limit: {', '.join(failed)}")
