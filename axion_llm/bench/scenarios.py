"""What users feel beside throughput, against both servers in turn: a long prompt among streams, the second turn of a
chat, guesses at repeated text, graphs used again, a stream that follows a schema.

Each scenario gives rows of one figure per side.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from axion_llm.bench.client import BenchError, Trace, get, stream_chat

WORDS = [
    w
    for line in (
        "river stone garden window letter morning market engine forest paper silver bridge summer doctor",
        "kitchen mountain signal harbour pocket theatre ladder blanket candle orchard village number colour",
    )
    for w in line.split()
]
NUM_STREAMS = 3
LONG_WORDS = 1750  # about 2,400 tokens of SmolLM2
CHAT_WORDS = 1450  # about 2,000
SECONDS_BEFORE = 1.0  # of undisturbed streaming
REPORT = (
    "The council met on {day} in the old town hall. The treasurer reported that the bridge over the river would cost "
    "{cost} million, of which the region pays one half. The mayor said that the work begins in {month} and that the "
    "road stays open. A resident asked about the noise at night. The engineer answered that no work is done after "
    "{hour}. The library will get a new roof, and the school a second bus. The next meeting is in {next}, when the "
    "budget of the harbour is to be discussed."
)
DETAILS = {
    "day": ("Monday", "Tuesday", "Friday"),
    "cost": ("four", "six", "nine", "twelve"),
    "month": ("March", "April", "May"),
    "hour": ("eight", "nine", "ten"),
    "next": ("June", "July", "October"),
}


@dataclass(frozen=True)
class Row:
    """One figure of one side; `better` says which way."""

    scenario: str
    what: str
    side: str
    value: float
    unit: str
    better: str = "lower"


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def request(prompt: str | list[dict[str, str]], max_tokens: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    body = {"model": "bench", "messages": messages, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    return body | more


async def all_streaming(tasks: list[asyncio.Task[Trace]], traces: list[Trace]) -> None:
    """Returns when each stream has shown something; raises what ended one before."""
    while not all(t.pieces for t in traces):
        await asyncio.sleep(0.01)
        for task in tasks:
            if task.done():
                task.result()


# ---- a long prompt arrives while others stream


@dataclass(frozen=True)
class Stall:
    longest_gap: float  # seconds, in the other streams, from the long prompt's arrival to its first token
    ttft: float  # of the long prompt


async def stall(url: str, rng: random.Random) -> Stall:
    bodies = [request(f"{rng.random():.6f} Tell a story of {words(rng, 20)}", 4000) for _ in range(NUM_STREAMS)]
    traces = [Trace(0.0) for _ in bodies]
    streams = [asyncio.create_task(stream_chat(url, b, t)) for b, t in zip(bodies, traces, strict=True)]
    try:
        await all_streaming(streams, traces)
        await asyncio.sleep(SECONDS_BEFORE)
        long = await stream_chat(url, request(f"{rng.random():.6f} Summarise: {words(rng, LONG_WORDS)}", 4))
    finally:
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    return Stall(max(longest_gap(t, long.sent, long.sent + long.ttft) for t in traces), long.ttft)


def longest_gap(trace: Trace, start: float, end: float) -> float:
    """Longest silence of a stream that touches [start, end]; absolute times."""
    times = [trace.sent + p for p in trace.pieces]
    before = [t for t in times if t <= start][-1:] or [start]
    after = [t for t in times if t >= end][:1] or [end]
    points = [*before, *(t for t in times if start < t < end), *after]
    return max(b - a for a, b in itertools.pairwise(points))


# ---- the second turn of a chat


async def turns(url: str, rng: random.Random) -> tuple[float, float]:
    """TTFT of the first turn and of the second, in seconds."""
    chat = [{"role": "user", "content": f"{rng.random():.6f} {words(rng, CHAT_WORDS)}"}]
    first = await stream_chat(url, request(chat, 48))
    chat += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And what comes after that?"}]
    second = await stream_chat(url, request(chat, 8))
    return first.ttft, second.ttft


# ---- guesses


async def summarise(url: str, rng: random.Random, speculation: str) -> float:
    """Output tokens per second, from the first one on, of a summary."""
    text = REPORT.format(**{name: rng.choice(values) for name, values in DETAILS.items()})
    body = request(f"Summarise this text:\n\n{text}", 160, speculation=speculation, ignore_eos=False)
    trace = await stream_chat(url, body)
    return (trace.completion_tokens - 1) / (trace.end - trace.ttft)


# ---- graphs


async def read(url: str, *names: str) -> list[float]:
    status, text = await get(url.removesuffix("/v1") + "/metrics")
    found = [re.search(rf"^{name}_total{{[^}}]*}} (\S+)$", text, re.M) for name in names]
    if status != 200 or not all(found):
        raise BenchError(f"{url}: no metrics {', '.join(names)}")
    return [float(f[1]) for f in found if f]


async def graphs(url: str, rng: random.Random, streams: int, prompt_words: int, output: int) -> tuple[float, float]:
    """Share of decode steps that used the graph again, and milliseconds of a step, while the streams run."""
    names = ("axion_engine_decode_steps", "axion_decode_graph_reuses", "axion_engine_decode_seconds")
    bodies = [request(f"{rng.random():.6f} {words(rng, prompt_words)}", output) for _ in range(streams)]
    traces = [Trace(0.0) for _ in bodies]
    tasks = [asyncio.create_task(stream_chat(url, b, t)) for b, t in zip(bodies, traces, strict=True)]
    await all_streaming(tasks, traces)
    before = await read(url, *names)
    await asyncio.gather(*tasks)
    steps, reuses, seconds = (b - a for a, b in zip(before, await read(url, *names), strict=True))
    return reuses / steps, seconds / steps * 1e3


# ---- one stream follows a schema

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "city": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "moods": {"type": "array", "items": {"enum": ["glad", "glum", "calm"]}, "maxItems": 3},
    },
    "required": ["name", "city", "age", "moods"],
    "additionalProperties": False,
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 400}


async def beside(url: str, rng: random.Random, more: dict[str, Any] | None) -> float:
    """Output tokens per second of seven plain streams, from their first tokens on, beside one more request."""
    bodies = [request(f"{rng.random():.6f} Tell a story of {words(rng, 20)}", 64) for _ in range(7)]
    other = [request(f"{rng.random():.6f} Invent people of {words(rng, 20)}", 2000, **more)] if more is not None else []
    traces = [Trace(0.0) for _ in [*bodies, *other]]
    tasks = [asyncio.create_task(stream_chat(url, b, t)) for b, t in zip([*bodies, *other], traces, strict=True)]
    try:
        await all_streaming(tasks, traces)
        plain = await asyncio.gather(*tasks[:7])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    start, end = max(t.sent + t.ttft for t in traces), max(t.sent + t.end for t in plain)
    return sum(sum(t.sent + p > start for p in t.pieces) for t in plain) / (end - start)


# ---- all of them


Measure = Callable[[str, random.Random], Awaitable[dict[tuple[str, str, str], float]]]


async def measure_stall(url: str, rng: random.Random) -> dict[tuple[str, str, str], float]:
    one = await stall(url, rng)
    return {
        ("longest gap in the streams", "s", "lower"): one.longest_gap,
        ("TTFT of the long prompt", "s", "lower"): one.ttft,
    }


async def measure_turns(url: str, rng: random.Random) -> dict[tuple[str, str, str], float]:
    first, second = await turns(url, rng)
    return {
        ("TTFT, first turn", "s", "lower"): first,
        ("TTFT, second turn", "s", "lower"): second,
        ("first turn / second turn", "x", "higher"): first / second,
    }


async def measure_speculation(url: str, rng: random.Random) -> dict[tuple[str, str, str], float]:
    seed = rng.random()  # the same text for both
    off, on = [await summarise(url, random.Random(seed), how) for how in ("off", "ngram")]
    return {
        ("tokens/s without guesses", "tok/s", "higher"): off,
        ("tokens/s with guesses", "tok/s", "higher"): on,
        ("with / without", "x", "higher"): on / off,
    }


async def measure_graphs(url: str, rng: random.Random) -> dict[tuple[str, str, str], float]:
    one, one_ms = await graphs(url, rng, 1, 5000, 1000)
    eight, eight_ms = await graphs(url, rng, 8, 60, 850)
    return {
        ("graph used again, 1 stream", "share", "higher"): one,
        ("a decode step, 1 stream", "ms", "lower"): one_ms,
        ("graph used again, 8 streams", "share", "higher"): eight,
        ("a decode step, 8 streams", "ms", "lower"): eight_ms,
    }


async def measure_grammar(url: str, rng: random.Random) -> dict[tuple[str, str, str], float]:
    schema = {"type": "json_schema", "json_schema": {"name": "people", "schema": PEOPLE}}
    alone, plain, bound = [
        await beside(url, rng, more) for more in (None, {}, {"response_format": schema, "ignore_eos": False})
    ]
    masks, seconds = await read(url, "axion_masks", "axion_mask_seconds")
    return {
        ("7 plain streams", "tok/s", "higher"): alone,
        ("beside an eighth plain one", "tok/s", "higher"): plain,
        ("beside one with a schema", "tok/s", "higher"): bound,
        ("with a schema / plain", "x", "higher"): bound / plain,
        ("a mask", "us", "lower"): seconds / masks * 1e6,
    }


SCENARIOS: dict[str, Measure] = {
    "stall": measure_stall,
    "turns": measure_turns,
    "speculation": measure_speculation,
    "graphs": measure_graphs,
    "grammar": measure_grammar,
}
ONLY_OURS = {"speculation", "graphs", "grammar"}  # the peer has no switch and no counters for these


async def compare(
    urls: dict[str, str], scenario: str, num_rounds: int, say: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """One scenario on all sides in turn; medians over the rounds. `urls`: of each side, by its name."""
    rng = random.Random(11)
    sides = {name: url for name, url in urls.items() if scenario not in ONLY_OURS or name != "stock"}
    seen: dict[tuple[str, tuple[str, str, str]], list[float]] = {}
    for i in range(num_rounds):
        for name, url in sides.items():
            for key, value in (await SCENARIOS[scenario](url, rng)).items():
                seen.setdefault((name, key), []).append(value)
        say(f"{scenario}: round {i + 1} of {num_rounds}")
    return [
        Row(scenario, what, name, statistics.median(values), unit, better)
        for (name, (what, unit, better)), values in seen.items()
    ]
