"""Six models, three places, 24 clients that leave, dawdle and change their minds, workers killed at random.

Nobody may be left without an end: a request gets its text, and then exactly the one it gets on a quiet machine, or an
error in the right shape. In the end no process, descriptor, sequence or memory is left over.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
import pytest

from axion_llm.api import status as doc
from tests.e2e.conftest import MODEL, ServeProcess, eventually
from tests.factory import write_tiny_gguf
from tests.requantise import requantise_smollm2

MIB = 1 << 20
TINY = ("phi3", "qwen2", "gemma3", "command-r")
MODELS = (MODEL, "q8", *TINY)
NUM_CLIENTS = 24
MAX_KILLS = 12  # of a storm: a model that crashes five times in ten minutes gets a rest
PATIENCE_SECONDS = 120.0  # of a client; whoever waits longer has been forgotten
NUM_HELPERS = (os.cpu_count() or 1) + 4  # threads of the event loop's executor: they start at need and stay
FLAT_BYTES = 6 * MIB  # that the server may hold more after a second half like the first
PROMPTS = [f"{subject} {verb}" for subject in ("The river", "My garden", "An engine") for verb in ("is", "was", "has")]
LENGTHS = (4, 12, 24)

Manner = Literal["whole", "stream", "slow", "leave"]
MANNERS: tuple[Manner, ...] = ("whole", "stream", "stream", "slow", "leave")
Case = tuple[str, str, int]  # model, prompt, tokens


@dataclass
class Outcomes:
    """What became of the requests."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(f"{n} {what}" for what, n in sorted(self.counts.items()))


class Chaos:
    """The service under test and everything that is done to it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        entries = {"q8": "q8.gguf"} | {arch: f"{arch}.gguf" for arch in TINY}
        registry = home / "models.toml"
        registry.write_text(
            f"[models.{MODEL}]\ncontext = 2048\nparallel = 4\n"
            + "".join(f'[models.{n}]\npath = "{f}"\ncontext = 2048\nparallel = 4\n' for n, f in entries.items())
        )
        options = ("--models", str(registry), "--warm", "0", "--max-loaded", "3", "--log-level", "warning")
        self.service = ServeProcess(home, *options)
        self.expected: dict[Case, str] = {}
        self.num_kills = 0

    # ---- one request

    async def quiet_texts(self, http: httpx.AsyncClient, cases: set[Case]) -> None:
        """One after the other, model by model."""
        for case in sorted(cases):
            answer = await http.post(f"{self.service.urls['standard']}/v1/completions", json=body(case))
            assert answer.status_code == 200, answer.text
            self.expected[case] = answer.json()["choices"][0]["text"]

    async def ask(
        self, http: httpx.AsyncClient, case: Case, manner: Manner, rng: random.Random, seen: Outcomes
    ) -> None:
        url = self.service.urls[rng.choice(("standard", "streaming"))]
        patience = rng.uniform(0.02, 2.0) if manner == "leave" else PATIENCE_SECONDS
        try:
            outcome, text = await asyncio.wait_for(self._one(http, url, case, manner, rng), patience)
        except asyncio.TimeoutError:
            if manner == "leave":
                seen.counts["left"] += 1
            else:
                seen.lost.append(f"{case}: no end in {PATIENCE_SECONDS:g} s")
            return
        except (httpx.HTTPError, ValueError, KeyError, AssertionError) as error:
            seen.lost.append(f"{case} {manner}: {error!r}")
            return
        seen.counts[outcome] += 1
        is_right = self.expected[case].startswith(text) if outcome != "text" else text == self.expected[case]
        if not is_right:
            seen.wrong.append(f"{case} {manner} {outcome}: {text!r} instead of {self.expected[case]!r}")

    async def _one(
        self, http: httpx.AsyncClient, url: str, case: Case, manner: Manner, rng: random.Random
    ) -> tuple[str, str]:
        """How it ended ("text", or "error" with its code) and the text so far."""
        request = body(case) | {"stream": manner != "whole"}
        if manner == "whole":
            answer = await http.post(f"{url}/v1/completions", json=request)
            if answer.status_code != 200:
                return refusal(answer.status_code, answer.content), ""
            return "text", answer.json()["choices"][0]["text"]
        async with http.stream("POST", f"{url}/v1/completions", json=request) as answer:
            if answer.status_code != 200:
                return refusal(answer.status_code, await answer.aread()), ""
            return await read_stream(answer.aiter_lines(), rng.uniform(0.05, 0.3) if manner == "slow" else 0.0)

    # ---- many

    async def storm(self, num_requests: int, seed: int, kill_every: tuple[float, float]) -> Outcomes:
        rng, seen = random.Random(seed), Outcomes()
        work = [(rng.choice(sorted(self.expected)), rng.choice(MANNERS)) for _ in range(num_requests)]
        limits = httpx.Limits(max_connections=NUM_CLIENTS + 4)
        async with httpx.AsyncClient(timeout=None, limits=limits) as http:
            killer = asyncio.create_task(self._kill(random.Random(seed + 1), kill_every))

            async def client(number: int) -> None:
                own = random.Random(seed * 1000 + number)
                while work:
                    await self.ask(http, *work.pop(), own, seen)

            await asyncio.gather(*(client(i) for i in range(NUM_CLIENTS)))
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)
        return seen

    async def _kill(self, rng: random.Random, every: tuple[float, float]) -> None:
        for _ in range(MAX_KILLS):
            await asyncio.sleep(rng.uniform(*every))
            victims = self.workers()
            if victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(victims).kill()
                    self.num_kills += 1

    # ---- what is left

    def workers(self) -> list[psutil.Process]:
        return [child for child in self.service.children() if child.status() != psutil.STATUS_ZOMBIE]

    def status(self) -> doc.Status:
        answer = httpx.get(f"{self.service.urls['standard']}/admin/status?memory=0", timeout=60)
        return doc.decode_status(answer.content)

    def is_idle(self) -> bool:
        status = self.status()
        return status.num_requests == 0 and all(m.num_running == m.num_waiting == 0 for m in status.models)

    def unload_all(self) -> None:
        eventually(self.is_idle, 30)
        for model in MODELS:
            url = f"{self.service.urls['standard']}/admin/models/{model}/unload"
            eventually(lambda url=url: httpx.post(url, json={}, timeout=60).status_code == 200, 30)  # type: ignore[misc]

    def leftovers(self) -> dict[str, int]:
        """With everything unloaded. Spare workers are started in the background: looked at when the number stands."""
        process = psutil.Process(self.service.process.pid)
        previous: dict[str, int] = {}
        for _ in range(50):
            time.sleep(0.3)
            now = {
                "processes": len(self.service.children()),
                "descriptors": process.num_fds(),
                "threads": process.num_threads(),
                "files in tmp": len(list((self.home / "tmp").iterdir())),
            }
            if now == previous:
                break
            previous = now
        return now

    def uss_bytes(self) -> int:
        return int(psutil.Process(self.service.process.pid).memory_full_info().uss)


def body(case: Case) -> dict[str, Any]:
    model, prompt, tokens = case
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": False,
    }


def refusal(status: int, content: bytes) -> str:
    """An error before the first byte; anything that is not in OpenAI's shape is none."""
    error = json.loads(content)["error"]
    assert {"message", "type", "param", "code"} == set(error), error
    assert status in (429, 500, 503), f"HTTP {status}: {error}"
    return f"error {error['code']}"


async def read_stream(lines: AsyncIterator[str], pause_seconds: float) -> tuple[str, str]:
    """A stream ends by a finish reason or an error, and then [DONE]; a ValueError says that it does not."""
    text, outcome = "", ""
    async for line in lines:
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            if not outcome:
                raise ValueError("[DONE] without a finish reason or an error")
            return outcome, text
        chunk = json.loads(line[6:])
        if "error" in chunk:
            outcome = f"error {chunk['error']['code']}"
            continue
        choice = chunk["choices"][0]
        text += choice["text"]
        outcome = "text" if choice["finish_reason"] else outcome
        await asyncio.sleep(pause_seconds)
    raise ValueError("the stream ended without [DONE]")


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    home = Path(tempfile.mkdtemp(prefix="chaos-"))  # short: sockets are made below it
    (home / "tmp").mkdir()
    requantise_smollm2(home / "q8.gguf", "Q8_0")
    for arch in TINY:
        write_tiny_gguf(home / f"{arch}.gguf", arch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(home / "tmp"))
        made = Chaos(home)
    try:
        made.service.wait_until_ready()
        yield made
        made.service.stop()
        assert list((home / "tmp").iterdir()) == []
    finally:
        made.service.kill()
        shutil.rmtree(home)


async def run(chaos: Chaos, num_requests: int, num_prompts: int, kill_every: tuple[float, float]) -> None:
    cases = {(m, p, n) for m in MODELS for p in PROMPTS[:num_prompts] for n in LENGTHS[:num_prompts]}
    async with httpx.AsyncClient(timeout=120) as http:
        await chaos.quiet_texts(http, cases)
    await asyncio.to_thread(chaos.unload_all)
    at_first = await asyncio.to_thread(chaos.leftovers)
    first = await chaos.storm(num_requests // 2, 1, kill_every)
    await asyncio.to_thread(chaos.unload_all)
    uss_bytes = chaos.uss_bytes()
    second = await chaos.storm(num_requests // 2, 2, kill_every)
    await asyncio.to_thread(chaos.unload_all)
    grown_bytes = chaos.uss_bytes() - uss_bytes
    print(f"\n{chaos.num_kills} kills; {first}; then {second}; USS of the server {grown_bytes / MIB:+.1f} MiB")
    assert first.lost + second.lost == []
    assert first.wrong + second.wrong == []
    ends = first.counts + second.counts
    assert ends["error internal_error"] == 0
    assert ends["text"] > num_requests / 3 and ends["left"] > 0 and chaos.num_kills > 0
    at_last = await asyncio.to_thread(chaos.leftovers)
    bounds = at_first | {"threads": at_first["threads"] + NUM_HELPERS}
    assert {what: n for what, n in at_last.items() if n > bounds[what]} == {}
    assert grown_bytes < FLAT_BYTES


async def test_nothing_is_lost_wrong_or_left_over(chaos: Chaos) -> None:
    await run(chaos, num_requests=100, num_prompts=2, kill_every=(2.0, 4.0))


@pytest.mark.long
async def test_nothing_is_lost_wrong_or_left_over_in_a_long_storm(chaos: Chaos) -> None:
    await run(chaos, num_requests=600, num_prompts=3, kill_every=(0.5, 8.0))
