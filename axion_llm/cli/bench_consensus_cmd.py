"""`axion-llm bench consensus`: what the consensus port costs and saves on this machine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from axion_llm.bench import consensus as bench_consensus
from axion_llm.bench.client import BenchError
from axion_llm.cli.bench_cmd import find_model
from axion_llm.errors import ServiceError


@click.command("consensus")
@click.option("--scenarios", default=",".join(bench_consensus.SCENARIOS), show_default=True)
@click.option("--model", "name", default="smollm2", show_default=True, help="Three copies of it are the experts.")
@click.option("--rounds", default=5, show_default=True, help="How often each side is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def consensus(scenarios: str, name: str, rounds: int, as_json: bool) -> None:
    """Three experts of equal size on the consensus port: times and tokens, not quality.

    \b
    arrangement   one expert at a time, halves, all at once, and what the service chooses by its own measurement
    early         tokens saved by stopping a decided vote; four of five items agree
    synthesis     first token after the last expert's end, with the answers read ahead and without
    """
    chosen = scenarios.split(",")
    if unknown := set(chosen) - set(bench_consensus.SCENARIOS):
        raise click.BadParameter(f"no such scenario: {', '.join(unknown)}", param_hint="--scenarios")
    try:
        rows = asyncio.run(bench_consensus.measure(find_model(name), chosen, rounds, Console(stderr=True).print))
    except BenchError as e:
        raise ServiceError(str(e)) from None
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table("scenario", "figure", "side", "value")
    for row in rows:
        table.add_row(row.scenario, row.what, row.side, f"{row.value:.3f} {row.unit}")
    Console(width=120).print(table)
