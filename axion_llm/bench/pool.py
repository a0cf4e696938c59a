"""Several models on one machine: what sharing the cores gives, and the first token of a model that is not loaded.

cores   three models generate at once, with the cores shared and with all threads for each; and one after another
cold    a model that no process has, its file in the page cache: ours and stock llama-server's router
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from axion_llm.bench.client import Trace, stream_chat
from axion_llm.bench.scenarios import Row, words
from axion_llm.bench.servers import Side, running, serve_command

NUM_MODELS = 3
OUTPUT_TOKENS = 192
PROMPT_WORDS = 40

Say = Callable[[str], None]


def registry(directory: Path, paths: Sequence[Path], name: str) -> Path:
    """A registry of models m0, m1, …, one for each path."""
    file = directory / f"{name}.toml"
    entries = (f'[models.m{i}]\npath = "{path}"\ncontext = 4096\nparallel = 4\n' for i, path in enumerate(paths))
    file.write_text("\n".join(entries))
    return file


def ours(name: str, models: Path, max_loaded: int, **environment: str) -> Side:
    command = [*serve_command(models), "--max-loaded", str(max_loaded)]
    return Side(name, command, "/health", environment)


def router(binary: Path, directory: Path, max_loaded: int) -> Side:
    command = [str(binary), "--port", "{port}", "--models-dir", str(directory), "--models-max", str(max_loaded)]
    command += ["-c", "4096", "-np", "4", "-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0", "--no-webui"]
    return Side("stock", command, "/health")


def body(rng: random.Random, model: str, max_tokens: int) -> dict[str, Any]:
    prompt = f"{rng.random():.6f} Tell a story of {words(rng, PROMPT_WORDS)}"
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}


def rows(scenario: str, seen: dict[tuple[str, str, str], list[float]], better: str) -> list[Row]:
    found = ((what, side, unit, statistics.median(values)) for (what, side, unit), values in seen.items())
    return [Row(scenario, what, side, value, unit, better) for what, side, unit, value in found]


# ---- cores


def rate(traces: list[Trace]) -> float:
    """Output tokens per second of all together, from the first request to the last token."""
    began = min(t.sent for t in traces)
    return sum(t.completion_tokens for t in traces) / (max(t.sent + t.end for t in traces) - began)


async def at_once(url: str, rng: random.Random) -> list[Trace]:
    return list(await asyncio.gather(*(stream_chat(url, body(rng, f"m{i}", OUTPUT_TOKENS)) for i in range(NUM_MODELS))))


async def in_turn(url: str, rng: random.Random) -> list[Trace]:
    return [await stream_chat(url, body(rng, f"m{i}", OUTPUT_TOKENS)) for i in range(NUM_MODELS)]


async def cores(path: Path, num_rounds: int, say: Say) -> list[Row]:
    rng = random.Random(5)
    seen: dict[tuple[str, str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        models = registry(Path(name), [path] * NUM_MODELS, "cores")
        sides = [
            ours("shared", models, NUM_MODELS),
            ours("all threads each", models, NUM_MODELS, AXION_SHARE_CORES="off"),
        ]
        async with contextlib.AsyncExitStack() as stack:
            urls = {side.name: await stack.enter_async_context(running(side)) for side in sides}
            for url in urls.values():
                await in_turn(url, rng)  # loads them
            for i in range(num_rounds):
                for side, url in urls.items():
                    for what, arrangement in (("three at once", at_once), ("one after another", in_turn)):
                        traces = await arrangement(url, rng)
                        seen.setdefault((what, side, "tok/s"), []).append(rate(traces))
                say(f"cores: round {i + 1} of {num_rounds}")
    return rows("cores", seen, "higher")


# ---- cold


async def first_token(url: str, rng: random.Random, model: str) -> float:
    return (await stream_chat(url, body(rng, model, 1))).ttft


def cold_sides(path: Path, binary: Path | None, num_models: int, directory: Path) -> list[Side]:
    """Both with as many names for one file."""
    for i in range(num_models):
        (directory / f"m{i}.gguf").symlink_to(path)
    path.read_bytes()  # into the page cache
    sides = [ours("axion", registry(directory, [path] * num_models, "cold"), num_models)]
    return sides + ([router(binary, directory, num_models)] if binary else [])


async def cold(path: Path, binary: Path | None, num_rounds: int, say: Say) -> list[Row]:
    """Every round asks for a name that was not asked for before; the file behind it is the same."""
    rng = random.Random(6)
    seen: dict[tuple[str, str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        sides = await asyncio.to_thread(cold_sides, path, binary, num_rounds, Path(name))
        async with contextlib.AsyncExitStack() as stack:
            urls = {side.name: await stack.enter_async_context(running(side)) for side in sides}
            await asyncio.sleep(3)  # for the spare worker, and for whatever the peer does at its start
            for i in range(num_rounds):
                for side, url in urls.items():
                    for what in (f"first token, cold ({path.name})", f"first token, loaded ({path.name})"):
                        seen.setdefault((what, side, "s"), []).append(await first_token(url, rng, f"m{i}"))
                    await asyncio.sleep(3)  # the next spare worker gets ready
                say(f"cold: round {i + 1} of {num_rounds}")
    return rows("cold", seen, "lower")
