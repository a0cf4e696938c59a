"""`axion-llm bench pool`: several models side by side."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from axion_llm.bench import load as bench_load
from axion_llm.bench import pool as bench_pool
from axion_llm.bench.client import BenchError
from axion_llm.bench.scenarios import Row
from axion_llm.cli.bench_cmd import find_model, print_rows
from axion_llm.errors import ServiceError


@click.command("pool")
@click.option("--vs", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Stock llama-server binary.")
@click.option("--scenarios", default="cores,cold,load", show_default=True)
@click.option("--model", "name", default="smollm2", show_default=True, help="A model of the registry.")
@click.option("--file", "files", multiple=True, type=click.Path(exists=True, path_type=Path), help="GGUFs for cold.")
@click.option("--rounds", default=3, show_default=True, help="How often each side is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pool(vs: Path | None, scenarios: str, name: str, files: tuple[Path, ...], rounds: int, as_json: bool) -> None:
    """Several models on one machine, each arrangement in turn.

    \b
    cores   three models at once with the cores shared, with all threads for each, and one after another
    cold    first token of a model that is not loaded (its file in the page cache), against stock's router
    load    the longest gap in one model's stream, left alone and while another model loads
    """
    chosen = scenarios.split(",")
    if unknown := set(chosen) - {"cores", "cold", "load"}:
        raise click.BadParameter(f"no such scenario: {', '.join(unknown)}", param_hint="--scenarios")
    say = Console(stderr=True).print
    found: list[Row] = []
    try:
        if "cores" in chosen:
            found += asyncio.run(bench_pool.cores(find_model(name), rounds, say))
        for path in (files or (find_model(name),)) if "cold" in chosen else ():
            found += asyncio.run(bench_pool.cold(path, vs, rounds, say))
        if "load" in chosen:
            found += asyncio.run(bench_load.measure(find_model(name), rounds, say))
    except BenchError as e:
        raise ServiceError(str(e)) from None
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=2))
        return
    for scenario in dict.fromkeys(row.scenario for row in found):
        print_rows([row for row in found if row.scenario == scenario])
