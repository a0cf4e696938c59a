"""The consensus port, measured over HTTP with three experts of equal size (copies of one model in files of their own).

arrangement   time to the last expert's end: one at a time, in halves, all at once, and as the service chooses
early         tokens saved by stopping a decided vote, the answer being the same; 80% of the items agree
synthesis     from the last expert's end to the first token of the synthesis, with answers read ahead and without
"""

from __future__ import annotations

import contextlib
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axion_llm.bench.client import BenchError, stream_events
from axion_llm.bench.pool import registry
from axion_llm.bench.scenarios import Row, words
from axion_llm.bench.servers import Side, running, serve_command

NUM_EXPERTS = 3
EXPERTS = [f"m{i}" for i in range(NUM_EXPERTS)]
SCENARIOS = ("arrangement", "early", "synthesis")
TRIES = 6  # runs in which the service finds its arrangement, see consensus/arrangement.py
ARRANGEMENTS = {"serial": 1, "halves": 2, "parallel": 3, "chosen": None}
ARRANGEMENT_TOKENS, ANSWER_TOKENS = 48, 96
NUM_ITEMS, NUM_SAMPLES, AGREEING_PART = 25, 9, 0.8

Say = Callable[[str], None]


@dataclass
class Run:
    """One answer as its stream told it; times in seconds since the request was sent."""

    ended: list[float] = field(default_factory=list)  # of the experts
    first_text: float | None = None
    end: float = 0.0
    text: str = ""
    judge: str | None = None
    consensus: dict[str, Any] = field(default_factory=dict)
    completion_tokens: int = 0


async def ask(
    url: str, prompt: str, strategy: str, options: dict[str, Any], *, is_whole: bool = True, **fields: Any
) -> Run:
    """`is_whole`: to the end; else only to the first text, then the client leaves."""
    body = {"model": f"consensus/{strategy}", "messages": [{"role": "user", "content": prompt}], "consensus": options}
    run, began = Run(), time.perf_counter()
    async with contextlib.aclosing(stream_events(url, {**body, **fields})) as chunks:
        async for chunk in chunks:
            _note(run, chunk, time.perf_counter() - began)
            if run.first_text is not None and not is_whole:
                return run
    run.end = time.perf_counter() - began
    if not run.consensus:
        raise BenchError("the stream ended without its account")
    return run


def _note(run: Run, chunk: dict[str, Any], now: float) -> None:
    told = chunk.get("consensus", {})
    if told.get("event") == "expert_ended":
        run.ended.append(now)
    elif told.get("event") == "synthesis_started":
        run.judge = told["model"]
    elif told and "event" not in told:
        run.consensus = told
    for choice in chunk["choices"]:
        if content := choice["delta"].get("content"):
            run.first_text = now if run.first_text is None else run.first_text
            run.text += content
    if usage := chunk.get("usage"):
        run.completion_tokens = usage["completion_tokens"]


@contextlib.asynccontextmanager
async def service(model: Path) -> AsyncIterator[str]:
    """Three experts, each with a file of its own: they must not share pages of weights."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        copies = [directory / f"{expert}.gguf" for expert in EXPERTS]
        for copy in copies:
            shutil.copyfile(model, copy)
        command = [*serve_command(registry(directory, copies, "consensus"))]
        command[command.index("--only") + 1] = "consensus"
        command[command.index("--standard-port")] = "--consensus-port"
        async with running(Side("axion", command, "/health")) as url:
            for expert in EXPERTS:
                await ask(url, "Hello", "route", {"experts": [expert]}, max_tokens=4)
            yield url


def prompt_of(rng: random.Random, num_words: int = 30) -> str:
    return f"{rng.random():.6f} Tell a story of {words(rng, num_words)}"


# ---- arrangement


async def arrangement(url: str, num_rounds: int, say: Say) -> list[Row]:
    rng = random.Random(3)
    options = {"experts": EXPERTS, "early_stop": False}
    limits: dict[str, Any] = {"max_tokens": ARRANGEMENT_TOKENS, "ignore_eos": True}
    seen: dict[str, list[Run]] = {name: [] for name in ARRANGEMENTS}
    for _ in range(TRIES):
        await ask(url, prompt_of(rng), "best_of", options, **limits)
    for i in range(num_rounds):
        for name, concurrency in ARRANGEMENTS.items():
            chosen = options | ({"concurrency": concurrency} if concurrency else {})
            seen[name].append(await ask(url, prompt_of(rng), "best_of", chosen, **limits))
        say(f"arrangement: round {i + 1} of {num_rounds}")
    times = {name: statistics.median(max(run.ended) for run in runs) for name, runs in seen.items()}
    tokens = NUM_EXPERTS * ARRANGEMENT_TOKENS
    rows = [Row("arrangement", "to the last end", name, t, "s", "lower") for name, t in times.items()]
    rows += [Row("arrangement", "tokens", name, tokens / t, "tokens/s", "higher") for name, t in times.items()]
    best = min(t for name, t in times.items() if name != "chosen")
    return [*rows, Row("arrangement", "chosen / best", "chosen", times["chosen"] / best, "", "lower")]


# ---- early stop

# Output that can be compared whatever the temperature.
NUMBER = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"]}
ANSWER = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {**NUMBER, "additionalProperties": False}}}
EARLY: dict[str, dict[str, Any]] = {
    "self": {"experts": EXPERTS[:1], "n": NUM_SAMPLES},
    "vote": {"experts": EXPERTS, "concurrency": 1},
    "cascade": {"experts": EXPERTS, "concurrency": 1},
}


def items(rng: random.Random) -> list[tuple[str, float]]:
    """Questions and temperatures: cold answers agree, hot ones do not."""
    hot = round(NUM_ITEMS * (1 - AGREEING_PART))
    temperatures = [2.0] * hot + [0.01] * (NUM_ITEMS - hot)
    rng.shuffle(temperatures)
    return [(f"How much is {rng.randint(2, 30)} + {rng.randint(2, 30)}?", t) for t in temperatures]


async def early(url: str, say: Say) -> list[Row]:
    rows: list[Row] = []
    for strategy, options in EARLY.items():
        saved, num_all, num_same, num_agreeing = 0, 0, 0, 0
        for number, (question, temperature) in enumerate(items(random.Random(5))):
            fields: dict[str, Any] = {"temperature": temperature, "seed": number * 100, "max_tokens": 16}
            fields["response_format"] = ANSWER
            full = await ask(url, question, strategy, options | {"early_stop": False}, **fields)
            stopped = await ask(url, question, strategy, options, **fields)
            num_all += full.completion_tokens
            saved += full.completion_tokens - stopped.completion_tokens
            num_same += _extracted(full) == _extracted(stopped)
            num_agreeing += full.consensus["agreement"] == 1.0
        say(f"early: {strategy}")
        figures = (("tokens saved", saved / num_all), ("same answer", num_same / NUM_ITEMS))
        for what, share in (*figures, ("items of one voice", num_agreeing / NUM_ITEMS)):
            rows.append(Row("early", what, strategy, 100 * share, "%", "higher"))
    return rows


def _extracted(run: Run) -> str | None:
    chosen = run.consensus["chosen"]
    return next((e["extracted"] for e in run.consensus["experts"] if e["index"] == chosen), None)


# ---- synthesis


async def synthesis(url: str, num_rounds: int, say: Say) -> list[Row]:
    """One expert after another, and all at once, where they end together and little can be read ahead."""
    rng = random.Random(9)
    seen: dict[tuple[str, str], list[float]] = {}
    limits: dict[str, Any] = {"max_tokens": ANSWER_TOKENS, "ignore_eos": True}
    for i in range(num_rounds):
        for name, concurrency in (("serial", 1), ("parallel", NUM_EXPERTS)):
            for side, is_on in (("read ahead", True), ("not", False)):
                options = {"experts": EXPERTS, "pre_evaluate": is_on, "concurrency": concurrency}
                run = await ask(url, prompt_of(rng), "synthesize", options, is_whole=False, **limits)
                if run.first_text is None or run.judge is None:
                    raise BenchError("no synthesis was written")
                seen.setdefault((name, side), []).append(run.first_text - max(run.ended))
        say(f"synthesis: round {i + 1} of {num_rounds}")
    medians = {key: statistics.median(values) for key, values in seen.items()}
    rows = [Row("synthesis", f"last end to first token, {n}", side, t, "s") for (n, side), t in medians.items()]
    for name in ("serial", "parallel"):
        ratio = medians[name, "read ahead"] / medians[name, "not"]
        rows.append(Row("synthesis", f"ratio, {name}", "read ahead / not", ratio, ""))
    return rows


async def measure(model: Path, chosen: list[str], num_rounds: int, say: Say) -> list[Row]:
    found: list[Row] = []
    async with service(model) as url:
        if "arrangement" in chosen:
            found += await arrangement(url, num_rounds, say)
        if "early" in chosen:
            found += await early(url, say)
        if "synthesis" in chosen:
            found += await synthesis(url, num_rounds, say)
    return found
