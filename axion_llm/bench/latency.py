"""Latency under a load that cannot hurt: few requests at a time, and the client waits when the server says it is full.

The same requests go to every side, in turn; what is compared is their time from the first byte sent to the last one
received, its spread, and the tokens generated per second.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from axion_llm.bench.client import BenchError, HttpError, Trace, get, stream_chat
from axion_llm.bench.scenarios import words

MAX_CONCURRENCY = 8
BUSY_STATUSES = (429, 503)
MAX_TRIES = 6
PROMPT_WORDS = (10, 60, 300)  # short, middle, long
OUTPUT_TOKENS = (24, 48, 96)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Workload:
    model: str = "bench"
    num_requests: int = 12  # of each round
    concurrency: int = 2
    num_rounds: int = 2
    max_seconds: float = 90.0  # of all sides and rounds together; no request is sent after that


@dataclass(frozen=True)
class Result:
    """Of one side."""

    side: str
    num_requests: int
    num_deferred: int  # times the server was full or not ready, and the client waited
    mean_seconds: float
    stdev_seconds: float
    p50_seconds: float
    p95_seconds: float
    ttft_p50_seconds: float
    gap_max_seconds: float
    tokens_per_second: float  # output tokens by the time in which requests were in flight


@dataclass
class Seen:
    traces: list[Trace] = field(default_factory=list)
    num_deferred: int = 0
    busy_seconds: float = 0.0

    def add(self, other: Seen) -> None:
        self.traces += other.traces
        self.num_deferred += other.num_deferred
        self.busy_seconds += other.busy_seconds


def bodies(workload: Workload, number: int) -> list[dict[str, Any]]:
    """The requests of round `number`, the same ones for every side."""
    rng = random.Random(number)
    return [
        {
            "model": workload.model,
            "messages": [
                {"role": "user", "content": f"{number}.{i} Write about {words(rng, rng.choice(PROMPT_WORDS))}"}
            ],
            "max_tokens": rng.choice(OUTPUT_TOKENS),
            "temperature": 0,
            "ignore_eos": True,
        }
        for i in range(workload.num_requests)
    ]


async def measure(urls: Mapping[str, str], workload: Workload, say: Say, key: str | None = None) -> list[Result]:
    """`urls`: of each side, by its name, ending in /v1. Only rounds count that every side has completed in time.

    Raises BenchError when there is no such round.
    """
    if not 1 <= workload.concurrency <= MAX_CONCURRENCY:
        raise BenchError(f"{workload.concurrency} requests at a time: this takes 1 to {MAX_CONCURRENCY}")
    seen = {name: Seen() for name in urls}
    end = time.monotonic() + workload.max_seconds
    for number in range(workload.num_rounds):
        work = bodies(workload, number)
        found = {name: await _run(url, work, workload.concurrency, end, key) for name, url in urls.items()}
        if any(len(side.traces) < len(work) for side in found.values()):
            say(f"{workload.max_seconds:g} s are over: {number} of {workload.num_rounds} rounds count")
            break
        for name, side in found.items():
            seen[name].add(side)
        say(f"latency: round {number + 1} of {workload.num_rounds}")
    return [summary(name, side) for name, side in seen.items()]


async def _run(url: str, work: list[dict[str, Any]], concurrency: int, end: float, key: str | None) -> Seen:
    seen, waiting = Seen(), list(reversed(work))
    began = time.monotonic()

    async def client() -> None:
        while waiting and time.monotonic() < end:
            seen.traces.append(await _patiently(url, waiting.pop(), seen, key))

    await asyncio.gather(*(client() for _ in range(concurrency)))
    seen.busy_seconds = time.monotonic() - began
    return seen


async def _patiently(url: str, body: dict[str, Any], seen: Seen, key: str | None) -> Trace:
    """A server that is full is left alone for a while, each time twice as long."""
    for attempt in range(MAX_TRIES):
        try:
            return await stream_chat(url, body, key=key)
        except HttpError as error:
            if error.status not in BUSY_STATUSES or attempt == MAX_TRIES - 1:
                raise
            seen.num_deferred += 1
            await asyncio.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


def summary(side: str, seen: Seen) -> Result:
    if not seen.traces:
        raise BenchError(f"{side}: no round was complete in time; more --seconds or fewer --requests")
    times = sorted(t.end for t in seen.traces)
    return Result(
        side=side,
        num_requests=len(times),
        num_deferred=seen.num_deferred,
        mean_seconds=statistics.fmean(times),
        stdev_seconds=statistics.pstdev(times),
        p50_seconds=statistics.median(times),
        p95_seconds=times[min(len(times) - 1, int(len(times) * 0.95))],
        ttft_p50_seconds=statistics.median(t.ttft for t in seen.traces),
        gap_max_seconds=max((gap for t in seen.traces for gap in t.gaps), default=0.0),
        tokens_per_second=sum(t.completion_tokens for t in seen.traces) / seen.busy_seconds,
    )


async def is_healthy(url: str) -> bool:
    """Before anything is sent: a service in trouble is left alone."""
    status, _ = await get(url.removesuffix("/v1") + "/health")
    return status == 200


# ---- before and after


@dataclass(frozen=True)
class Change:
    what: str
    unit: str
    before: float
    after: float
    is_better: bool

    @property
    def percent(self) -> float:
        return (self.after / self.before - 1) * 100 if self.before else 0.0


_LOWER_IS_BETTER = {
    "average latency": ("mean_seconds", "s"),
    "standard deviation": ("stdev_seconds", "s"),
    "median latency": ("p50_seconds", "s"),
    "95th percentile": ("p95_seconds", "s"),
    "time to first token": ("ttft_p50_seconds", "s"),
    "longest gap": ("gap_max_seconds", "s"),
}


def compare(before: Result, after: Result) -> list[Change]:
    changes = []
    for what, (name, unit) in _LOWER_IS_BETTER.items():
        old, new = getattr(before, name), getattr(after, name)
        changes.append(Change(what, unit, old, new, new < old))
    old, new = before.tokens_per_second, after.tokens_per_second
    return [*changes, Change("throughput", "tokens/s", old, new, new > old)]


def to_json(results: list[Result], workload: Workload, machine: dict[str, Any]) -> str:
    found = {"machine": machine, "workload": asdict(workload), "results": [asdict(r) for r in results]}
    return json.dumps({"kind": "latency", **found}, indent=2)


def read(path: Path, side: str | None = None) -> tuple[Result, dict[str, Any]]:
    """One side of a file that `bench latency --json` wrote (the first one), and its workload; raises BenchError."""
    try:
        found = json.loads(path.read_text())
        results = [Result(**r) for r in found["results"]]
        workload: dict[str, Any] = found["workload"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} is no result of `axion-llm bench latency --json`: {error}") from None
    chosen = [r for r in results if side is None or r.side == side]
    if not chosen:
        raise BenchError(f"{path} has no side {side!r}; it has {', '.join(r.side for r in results)}")
    return chosen[0], workload
