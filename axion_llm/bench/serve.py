"""Streams in parallel against our server and stock llama-server in turn: output tokens/s, time to first token, gaps."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from axion_llm.bench import scenarios
from axion_llm.bench.client import Trace, get, stream_chat
from axion_llm.bench.scenarios import WORDS, Row
from axion_llm.bench.servers import Settings, Side, running

PROMPT_WORDS = 95  # about 130 tokens with the chat template
OUTPUT_TOKENS = 64


@dataclass(frozen=True)
class Point:
    """One side at one number of streams: medians over the rounds."""

    side: str
    streams: int
    tokens_per_second: float  # output, all streams, from the first request to the last token
    ttft_p50_ms: float
    ttft_p95_ms: float
    gap_p50_ms: float
    gap_max_ms: float
    outside_ms: float | None = None  # per step, of our engine loop outside llama_decode; None: the side does not say
    outside_share: float | None = None  # of the loop's time


def body(rng: random.Random) -> dict[str, Any]:
    """A request that no earlier one shares a prefix with: the first words differ."""
    text = "Continue this list with a story: " + " ".join(rng.choice(WORDS) for _ in range(PROMPT_WORDS))
    return {
        "model": "bench",
        "messages": [{"role": "user", "content": f"{rng.random():.6f} {text}"}],
        "max_tokens": OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }


async def burst(url: str, streams: int, rng: random.Random) -> list[Trace]:
    return await asyncio.gather(*(stream_chat(url, body(rng)) for _ in range(streams)))


@dataclass(frozen=True)
class Loop:
    """Our engine's own account, from /metrics: totals since its start."""

    steps: float
    loop_seconds: float
    decode_seconds: float


async def read_loop(url: str) -> Loop | None:
    status, text = await get(url.removesuffix("/v1") + "/metrics")
    names = ("axion_engine_steps", "axion_engine_loop_seconds", "axion_engine_decode_seconds")
    values = [re.search(rf"^{name}_total{{[^}}]*}} (\S+)$", text, re.M) for name in names]
    return Loop(*(float(v[1]) for v in values if v)) if status == 200 and all(values) else None


def with_loop(point: Point, before: Loop | None, after: Loop | None) -> Point:
    """The point with what the engine loop spent between two readings."""
    if before is None or after is None:
        return point
    loop, decode = after.loop_seconds - before.loop_seconds, after.decode_seconds - before.decode_seconds
    outside = loop - decode
    return replace(point, outside_ms=outside / (after.steps - before.steps) * 1e3, outside_share=outside / loop)


def measure(side: str, rounds: list[list[Trace]]) -> Point:
    def throughput(traces: list[Trace]) -> float:
        start = min(t.sent for t in traces)
        return sum(t.completion_tokens for t in traces) / (max(t.sent + t.end for t in traces) - start)

    ttft = sorted(t.ttft for traces in rounds for t in traces)
    gaps = [g for traces in rounds for t in traces for g in t.gaps] or [0.0]
    return Point(
        side,
        len(rounds[0]),
        statistics.median(throughput(r) for r in rounds),
        statistics.median(ttft) * 1e3,
        ttft[min(len(ttft) - 1, int(len(ttft) * 0.95))] * 1e3,
        statistics.median(gaps) * 1e3,
        max(gaps) * 1e3,
    )


async def compare(
    sides: list[Side],
    streams: list[int],
    chosen: list[str],
    num_rounds: int,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Point], list[Row]]:
    """All sides run at once but are loaded one after the other, in turn, `num_rounds` times.

    `chosen`: scenarios; "streams" gives the points, each other one its rows.
    """
    rng = random.Random(7)
    points: list[Point] = []
    rows: list[Row] = []
    async with contextlib.AsyncExitStack() as stack:
        urls = {side.name: await stack.enter_async_context(running(side)) for side in sides}
        for url in urls.values():
            await burst(url, 2, rng)  # loads the model, warms both
        for scenario in chosen:
            if scenario != "streams":
                rows += await scenarios.compare(urls, scenario, num_rounds, say)
        if "streams" not in chosen:
            return points, rows
        for n in streams:
            rounds: dict[str, list[list[Trace]]] = {name: [] for name in urls}
            before = {name: await read_loop(url) for name, url in urls.items()}
            for i in range(num_rounds):
                for name, url in urls.items():
                    rounds[name].append(await burst(url, n, rng))
                say(f"{n} streams: round {i + 1} of {num_rounds}")
            for name, traces in rounds.items():
                points.append(with_loop(measure(name, traces), before[name], await read_loop(urls[name])))
    return points, rows


def as_records(points: list[Point]) -> list[dict[str, Any]]:
    """Points with their throughput as a ratio to the last side's at the same number of streams."""
    peers = {p.streams: p.tokens_per_second for p in points}  # the last side of each group stays
    return [asdict(p) | {"ratio": p.tokens_per_second / peers[p.streams]} for p in points]


def run(
    make_sides: Callable[[Settings, Path], list[Side]],
    settings: Settings,
    streams: list[int],
    chosen: list[str],
    rounds: int,
    say: Callable[[str], None],
) -> tuple[list[Point], list[Row]]:
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(compare(make_sides(settings, Path(directory)), streams, chosen, rounds, say))
