"""What a load costs the others: the longest gap in one model's stream, left alone and while another model loads."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from axion_llm.bench.client import BenchError, post, stream_chat
from axion_llm.bench.pool import Say, body, ours, registry, rows
from axion_llm.bench.scenarios import Row
from axion_llm.bench.servers import running

OUTPUT_TOKENS = 112
SECONDS_BEFORE = 0.7  # of undisturbed streaming
SETTLE_SECONDS = 2.0  # until the next spare worker stands ready


async def measure(path: Path, num_rounds: int, say: Say) -> list[Row]:
    """Both in turn; medians over the rounds. The loaded model is a second name for the same file, in the page cache."""
    rng = random.Random(8)
    seen: dict[tuple[str, str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        side = ours("axion", registry(Path(name), [path] * 2, "load"), 2)
        async with running(side) as base_url:
            await longest_gap_ms(base_url, rng, with_load=True)
            await asyncio.sleep(SETTLE_SECONDS)
            for i in range(num_rounds):
                quiet, _ = await longest_gap_ms(base_url, rng, with_load=False)
                loading, load_ms = await longest_gap_ms(base_url, rng, with_load=True)
                for what, value in (
                    ("longest gap, left alone", quiet),
                    ("longest gap, another model loads", loading),
                    ("growth of the longest gap", loading - quiet),
                    ("the load", load_ms),
                ):
                    seen.setdefault((what, side.name, "ms"), []).append(value)
                say(f"load: round {i + 1} of {num_rounds}: {quiet:.0f} ms alone, {loading:.0f} ms with a load")
                await asyncio.sleep(SETTLE_SECONDS)
    return rows("load", seen, "lower")


async def longest_gap_ms(base_url: str, rng: random.Random, *, with_load: bool) -> tuple[float, float]:
    """Of a stream of m0, and how long a load of m1 in its middle took; with the start of the spare worker after it."""
    stream = asyncio.create_task(stream_chat(base_url, body(rng, "m0", OUTPUT_TOKENS)))
    load_ms = 0.0
    if with_load:
        await asyncio.sleep(SECONDS_BEFORE)
        began = asyncio.get_running_loop().time()
        await _order(base_url, "load")
        load_ms = (asyncio.get_running_loop().time() - began) * 1e3
    trace = await stream
    if with_load:
        await _order(base_url, "unload")
    return max(trace.gaps) * 1e3, load_ms


async def _order(base_url: str, order: str) -> None:
    url = f"{base_url.removesuffix('/v1')}/admin/models/m1/{order}"
    status, text = await post(url, {})
    if status != 200:
        raise BenchError(f"{url}: HTTP {status}: {text[:300]}")
