"""`axion-llm consensus`: ask several experts, measure them on questions with known answers, compare strategies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from axion_llm.bench.client import BenchError, get, stream_events
from axion_llm.bench.servers import Side, running, serve_command
from axion_llm.config import Settings
from axion_llm.consensus.options import STRATEGIES
from axion_llm.errors import ServiceError

if TYPE_CHECKING:
    from axion_llm.bench.calibration import Collector
    from axion_llm.consensus.items import Item
    from axion_llm.consensus.scoring import Collected

KEY = click.option("--key", envvar="AXION_KEY", help="An API key, if the service has keys.")
URL = click.option("--url", help="A consensus port, as http://127.0.0.1:8084.  [the one here, else one is started]")


@click.group()
def consensus() -> None:
    """Several experts, one answer: ask them, measure them, compare the ways to combine them.

    \b
    axion-llm consensus ask "What is 17 * 23?" --show-experts
    axion-llm consensus calibrate               measures the experts here and writes their weights
    axion-llm consensus eval                    every strategy against the best single expert
    """


@contextlib.asynccontextmanager
async def service(url: str | None) -> AsyncIterator[str]:
    """The base URL of a consensus port that answers, started for the occasion when there is none."""
    settings = Settings.load()
    base = (url or f"http://127.0.0.1:{settings.consensus_port}").rstrip("/").removesuffix("/v1")
    status, _ = await get(f"{base}/health")
    if status == 200:
        yield f"{base}/v1"
        return
    if url is not None:
        raise ServiceError(f"{url} does not answer; start a service with: axion-llm serve")
    command = serve_command(Path("unused"))
    command = [part for part in command if part not in ("--models", "unused")]
    command[command.index("--only") + 1] = "consensus"
    command[command.index("--standard-port")] = "--consensus-port"
    async with running(Side("axion", command, "/health")) as started:
        yield started


# ---- ask


@consensus.command("ask")
@click.argument("prompt")
@click.option("--strategy", type=click.Choice(STRATEGIES), default="auto", show_default=True)
@click.option("--expert", "experts", multiple=True, help="A model to ask; may be repeated, at most 4.  [as fits]")
@click.option("-n", "samples", type=click.IntRange(1, 16), help="Samples of each expert.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of each answer.")
@click.option("--show-experts", is_flag=True, help="Each expert's answer and who decided.")
@click.option("--json", "as_json", is_flag=True, help="The answer and its account as JSON.")
@KEY
@URL
def ask(
    prompt: str,
    strategy: str,
    experts: tuple[str, ...],
    samples: int | None,
    max_tokens: int | None,
    show_experts: bool,
    as_json: bool,
    key: str | None,
    url: str | None,
) -> None:
    """Ask the experts on this machine, and see where the answer comes from.

    \b
    axion-llm consensus ask "Which is heavier, lead or iron? One word." --show-experts
    axion-llm consensus ask "Describe the sea." --strategy synthesize
    """
    options: dict[str, Any] = {"experts": list(experts) or None, "n": samples}
    body = {
        "model": f"consensus/{strategy}",
        "messages": [{"role": "user", "content": prompt}],
        "consensus": {k: v for k, v in options.items() if v is not None},
        **({"max_tokens": max_tokens} if max_tokens else {}),
    }
    text, account = _run(_ask(url, key, body, None if as_json else lambda piece: click.echo(piece, nl=False)))
    if as_json:
        click.echo(json.dumps({"answer": text, "consensus": account}, indent=2, ensure_ascii=False))
        return
    click.echo()
    if show_experts:
        print_account(account)


async def _ask(
    url: str | None, key: str | None, body: dict[str, Any], show: Callable[[str], None] | None
) -> tuple[str, dict[str, Any]]:
    text, account = "", {}
    async with service(url) as base:
        async for chunk in stream_events(base, body, key):
            for choice in chunk["choices"]:
                piece = choice["delta"].get("content") or ""
                text += piece
                if show and piece:
                    show(piece)
            found = chunk.get("consensus", {})
            if found and "event" not in found:
                account = found
    return text, account


def print_account(account: dict[str, Any]) -> None:
    table = Table("expert", "sample", "status", "comes down to", "weight", "time", "answer")
    for e in account["experts"]:
        seconds = "-" if e["timings"]["total_ms"] is None else f"{e['timings']['total_ms'] / 1e3:.1f} s"
        mark = "*" if e["index"] == account["chosen"] else ""
        words = " ".join(e["content"].split())
        cells = (str(e["sample"]), e["status"], str(e["extracted"] or "-"), str(e["weight"]), seconds, words[:200])
        table.add_row(f"{e['model']}{mark}", *cells)
    for f in account["failed"]:
        table.add_row(f["model"], str(f["sample"]), "[red]failed[/]", "-", "-", "-", f["error"]["message"][:200])
    console = Console()
    console.print(table)
    share = "" if account["agreement"] is None else f", agreement {account['agreement']:.0%}"
    by = account["judge"] or account["decided_by"]
    early = ", stopped early" if account["early_stopped"] else ""
    console.print(f"{account['strategy']}: decided by {by}{share}{early}. {account['routing']['reason']}", markup=False)


# ---- calibrate and eval


def _collecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options of both commands."""
    options = [
        click.option(
            "--set", "set_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Your items."
        ),
        click.option("--items", default=70, show_default=True, help="How many of the built-in items, without --set."),
        click.option("--expert", "experts", multiple=True, help="Only this model; may be repeated.  [all here]"),
        click.option("-n", "samples", default=3, show_default=True, help="Samples of each expert for each item."),
        click.option("--temperature", default=0.7, show_default=True),
        click.option("--cache", type=click.Path(dir_okay=False, path_type=Path), help="Keeps answers between runs."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        KEY,
        URL,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@consensus.command("calibrate")
@_collecting
def calibrate(set_file: Path | None, as_json: bool, **options: Any) -> None:
    """Measure each expert and strategy on questions with known answers, and write the weights that voting uses.

    \b
    --set FILE   lines {"prompt": "...", "answer": "...", "domain": "..."}; the domain may be left out.
                 Without it a small set of our own: arithmetic, choice, yes/no, extraction, languages, code.

    The weights go to AXION_CONSENSUS_WEIGHTS_FILE [~/.local/share/axion-llm/consensus-weights.json]; a running service
    takes them up by itself. What they are worth depends on how much the items are like your own requests.
    """
    from axion_llm.consensus.scoring import compare, expert_scores
    from axion_llm.consensus.weights import Weights
    from axion_llm.consensus.weights_file import write_weights

    items = _items(set_file, options["items"])
    collected = _run(_collect(items, options))
    best, rows = compare(collected)
    strategies = {row.name: {"all": row.score} for row in rows[1:]} | {"route": {"all": rows[0].score}}
    weights = Weights(expert_scores(collected), strategies)
    path = Settings.load().consensus_weights_file
    about = {"date": time.strftime("%Y-%m-%d"), "items": len(items), "set": set_file.name if set_file else "built-in"}
    write_weights(path, weights, about)
    if as_json:
        click.echo(path.read_text())
        return
    _print_experts(weights)
    _print_rows(best, rows)
    click.echo(f"written: {path}")


@consensus.command("eval")
@click.option("--aggregator", help="Also a synthesis by this model, on the same answers.")
@click.option("--judge", help="Compare texts by this model, each pair in both orders, instead of by known answers.")
@_collecting
def evaluate(set_file: Path | None, aggregator: str | None, judge: str | None, as_json: bool, **options: Any) -> None:
    """Every strategy against the best single expert, on identical answers of the experts.

    Gains and losses are items that only one of the two gets right; p is the exact McNemar test. `self` uses -n samples
    of the best expert: compare a strategy with it at the same number of calls. Weights come from the other half. With
    -n 4 or more: what a plurality of samples makes of the best expert, foretold from half of them, seen on the rest.
    """
    from axion_llm.consensus.scoring import Compared, compare, foretell, mcnemar, wilson

    items = _items(set_file, options["items"])
    collected, synthesised, wins = _run(_evaluate(items, aggregator, judge, options))
    best, rows = compare(collected)
    if synthesised is not None:
        base = [one.item.is_right(next(iter(one.answers[best]), "")) for one in collected]
        right = [one.item.is_right(text) for one, text in zip(collected, synthesised, strict=True)]
        gained = sum(r and not b for r, b in zip(right, base, strict=True))
        lost = sum(b and not r for r, b in zip(right, base, strict=True))
        calls = len(collected[0].answers) + 1.0
        score = wilson(sum(right), len(right))
        rows.append(Compared("synthesize", score, gained, lost, mcnemar(gained, lost), calls))
    told = foretell(collected, best) if options["samples"] >= 4 else None
    if as_json:
        record = {"best": best, "rows": [_record(row) for row in rows], "judged": wins}
        click.echo(json.dumps(record | {"foretold": told and asdict(told)}, indent=2))
        return
    _print_rows(best, rows)
    if told is not None:
        click.echo(
            f"{told.expert}, plurality of {options['samples'] // 2} samples: foretold from the other half of them "
            f"{told.foretold:.1%}, seen {told.seen:.1%}, one sample {told.single:.1%}; gained {told.num_gained}, lost "
            f"{told.num_lost}; {told.num_open} of {len(items)} items are open (accuracy 0.2 to 0.8)"
        )
    if wins is not None:
        click.echo(f"judged by {judge}: the synthesis wins {wins:.0%} against {best} (ties count half)")


def _items(set_file: Path | None, num_items: int) -> list[Item]:
    from axion_llm.consensus.items import built_in, read_items

    return read_items(set_file) if set_file else built_in(num_items)


async def _collect(items: list[Item], options: dict[str, Any]) -> list[Collected]:
    async with service(options["url"]) as base:
        collector, experts = await _collector(base, options)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("answers")
            return await collector.collect(
                items, experts, lambda done, total: bar.update(task, completed=done, total=total)
            )


async def _evaluate(
    items: list[Item], aggregator: str | None, judge: str | None, options: dict[str, Any]
) -> tuple[list[Collected], list[str] | None, float | None]:
    from axion_llm.consensus.scoring import compare

    async with service(options["url"]) as base:
        collector, experts = await _collector(base, options)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("answers")

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            collected = await collector.collect(items, experts, show)
            if aggregator is None:
                return collected, None, None
            texts = await collector.synthesize(collected, aggregator, show)
            if judge is None:
                return collected, texts, None
            best, _ = compare(collected)
            points = [
                await collector.judge(judge, one.item.prompt, text, next(iter(one.answers[best]), ""))
                for one, text in zip(collected, texts, strict=True)
            ]
            return collected, texts, sum(points) / len(points)


async def _collector(base: str, options: dict[str, Any]) -> tuple[Collector, list[str]]:
    from axion_llm.bench.calibration import Cache, Collector, experts_of

    here = await experts_of(base, options["key"])
    experts = list(options["experts"]) or here
    if missing := [name for name in experts if name not in here]:
        raise ServiceError(f"{missing[0]} is not on this machine; here: {', '.join(here) or 'none'}")
    return Collector(base, options["key"], Cache(options["cache"]), options["samples"], options["temperature"]), experts


def _run(work: Any) -> Any:
    try:
        return asyncio.run(work)
    except BenchError as e:
        raise ServiceError(str(e)) from None


def _record(row: Any) -> dict[str, Any]:
    score = row.score
    found = {
        "name": row.name,
        "accuracy": score.accuracy,
        "low": score.low,
        "high": score.high,
        "items": score.num_items,
    }
    return found | {"gained": row.num_gained, "lost": row.num_lost, "p": row.p_value, "calls": row.calls}


def _print_experts(weights: Any) -> None:
    table = Table("expert", "domain", "accuracy", "95% interval", "items", "weight")
    for expert, by_domain in weights.experts.items():
        for domain, s in sorted(by_domain.items()):
            interval = f"{s.low:.0%} to {s.high:.0%}"
            table.add_row(
                expert, domain, f"{s.accuracy:.0%}", interval, str(s.num_items), f"{weights.weight(expert, domain):.2f}"
            )
    Console().print(table)


def _print_rows(best: str, rows: list[Any]) -> None:
    table = Table("strategy", "accuracy", "95% interval", "calls", f"gained on {best}", "lost", "p")
    for row in rows:
        s = row.score
        cells = (f"{s.accuracy:.0%}", f"{s.low:.0%} to {s.high:.0%}", f"{row.calls:.1f}")
        table.add_row(row.name, *cells, str(row.num_gained), str(row.num_lost), f"{row.p_value:.3f}")
    Console().print(table)
