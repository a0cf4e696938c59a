"""200 requests to three real experts whose processes are killed and stopped at random: each ends in time."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import ServeProcess, eventually
from tests.e2e.test_consensus import EXPERTS, num_running
from tests.models_on_disk import smollm2_path

pytestmark = pytest.mark.long

NUM_REQUESTS, AT_ONCE = 200, 6
DEADLINE_MS = 8000
STRATEGIES = ["vote", "cascade", "best_of", "synthesize", "route", "self"]
PROMPTS = ["How much is 3 + 4? Give the number.", "Write a sentence about rain."]
CODES = {
    "no_quorum",
    "deadline_exceeded",
    "worker_died",
    "service_error",
    "overloaded",
    "model_load_failed",
    "engine_error",
}


async def torment(service: ServeProcess, draw: random.Random) -> None:
    """A worker is killed, or stands still for a while, again and again."""
    while True:
        await asyncio.sleep(draw.uniform(0.5, 2.0))
        workers = [c for c in service.children() if "axion_llm.worker" in " ".join(c.cmdline())]
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            victim = draw.choice(workers)
            if draw.random() < 0.5:
                victim.send_signal(signal.SIGKILL)
            else:
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(draw.uniform(0.5, 3.0))
                victim.send_signal(signal.SIGCONT)


async def one(client: httpx.AsyncClient, number: int, gate: asyncio.Semaphore, seen: collections.Counter[str]) -> None:
    body = {
        "model": f"consensus/{STRATEGIES[number % len(STRATEGIES)]}",
        "messages": [{"role": "user", "content": f"{PROMPTS[number % 2]} ({number})"}],
        "max_tokens": 12,
        "consensus": {"experts": EXPERTS, "deadline_ms": DEADLINE_MS, "patience_ms": 1500},
    }
    async with gate:
        began = time.monotonic()
        response = await client.post("/v1/chat/completions", json=body)
        seconds = time.monotonic() - began
    assert seconds < DEADLINE_MS / 1e3 + 1, f"{body['model']}: {seconds:.1f} s"
    if response.status_code == 200:
        assert response.json()["choices"][0]["message"]["content"].strip()
        seen["answered"] += 1
    else:
        code = response.json()["error"]["code"]
        assert code in CODES, response.text
        seen[code] += 1


async def test_every_request_is_answered_or_refused_in_time(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text("\n".join(f'[models.{n}]\npath = "{smollm2_path()}"\ncontext = 4096\n' for n in EXPERTS))
    service = ServeProcess(tmp_path, "--models", str(models), "--warm", "0", "--only", "consensus")
    seen: collections.Counter[str] = collections.Counter()
    try:
        service.wait_until_ready()
        gate = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(base_url=service.urls["consensus"], timeout=60) as client:
            tormentor = asyncio.create_task(torment(service, random.Random(4)))
            try:
                await asyncio.gather(*(one(client, n, gate, seen) for n in range(NUM_REQUESTS)))
            finally:
                tormentor.cancel()
                await asyncio.gather(tormentor, return_exceptions=True)
        assert sum(seen.values()) == NUM_REQUESTS
        assert seen["answered"] > NUM_REQUESTS / 2, seen
        for child in service.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGCONT)
        eventually(lambda: num_running(service) == 0, 15)
        service.stop()
    finally:
        print(dict(seen))
        service.kill()
