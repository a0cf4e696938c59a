"""A request that ends its process for real, by SIGKILL when it has got three tokens. All others see a pause at most."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from axion_llm.config import Settings
from axion_llm.errors import Quarantined
from axion_llm.models.registry import load_registry
from axion_llm.pool.pool import Pool
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Event, Finished, Generate, Piece, Sampling
from tests.models_on_disk import smollm2_path

pytestmark = pytest.mark.usefixtures("socket_root")

MODEL, MARK = "smollm2", "The marked request says"
WORKER = f"""
import os, signal
from axion_llm.engine.engine import Engine
real = Engine.step
def step(engine):
    events = real(engine)
    if any(s.request.prompt == {MARK!r} and s.num_output >= 3 for s in engine._sequences.values()):
        os.kill(os.getpid(), signal.SIGKILL)
    return events
Engine.step = step
from axion_llm.worker.process import main
main()
"""
_numbers = itertools.count()


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    settings = replace(Settings(), warm=0, spare_workers=0, user_models_file=tmp_path / "none.toml")
    command = [sys.executable, "-c", WORKER]
    made = Pool(
        load_registry(settings),  # type: ignore[arg-type]
        settings,
        new_worker=lambda: WorkerClient(command),
        locate=lambda *_: smollm2_path(),
    )
    try:
        yield made
    finally:
        await made.stop()


async def ask(pool: Pool, prompt: str, num_tokens: int) -> list[Event]:
    sampling = Sampling(temperature=0)
    request = Generate(f"r{next(_numbers)}", prompt, sampling, max_tokens=num_tokens, ignore_eos=True)
    async with pool.lease(MODEL) as model:
        return [event async for event in model.generate(request)]


def text_of(events: list[Event]) -> str:
    assert isinstance(events[-1], Finished) and events[-1].completion_tokens == 40
    return "".join(event.text for event in events if isinstance(event, Piece | Finished))


async def test_the_marked_request_ends_and_all_others_go_on(pool: Pool) -> None:
    prompts = [f"Number {i}: the keeper of the lighthouse says" for i in range(4)]
    alone = [text_of(await ask(pool, prompt, 40)) for prompt in prompts]
    streams = [asyncio.create_task(ask(pool, prompt, 40)) for prompt in prompts]
    await asyncio.sleep(0.1)
    with pytest.raises(Quarantined):
        await ask(pool, MARK, 40)
    assert [text_of(events) for events in await asyncio.gather(*streams)] == alone
    assert pool.accounts()[MODEL].num_crashes == 2
    with pytest.raises(Quarantined):  # it is known, and kills nothing
        await ask(pool, MARK, 40)
    began = time.monotonic()
    await ask(pool, "Hello", 2)
    assert time.monotonic() - began < 60
    assert pool.accounts()[MODEL].num_crashes == 2
