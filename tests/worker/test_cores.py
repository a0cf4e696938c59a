"""A real worker is told how many cores it may use, in the middle of a stream."""

from __future__ import annotations

from collections.abc import Callable

import psutil  # type: ignore[import-untyped]
import pytest

from axion_llm.pool.machine import available_cores
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Event, Finished, Generate, Load, Piece, Sampling
from tests.models_on_disk import smollm2_path


async def text_of(client: WorkerClient, meanwhile: Callable[[], None] = lambda: None) -> str:
    request = Generate("r", "Once upon a time", Sampling(temperature=0), max_tokens=40, ignore_eos=True)
    events: list[Event] = []
    async for event in client.generate(request):
        events.append(event)
        if len(events) == 10:
            meanwhile()
    return "".join(e.text for e in events if isinstance(e, Piece | Finished))


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
async def test_cores_change_in_mid_stream_and_the_text_does_not() -> None:
    client = WorkerClient()
    try:
        await client.start()
        await client.load(Load("m", str(smollm2_path()), n_ctx=1024, num_threads=2), 60)
        process = psutil.Process(client.pid)
        every_cpu = process.cpu_affinity()
        before = await text_of(client)
        assert await text_of(client, lambda: client.set_cores(1, every_cpu[:1])) == before
        assert all(psutil.Process(t.id).cpu_affinity() == every_cpu[:1] for t in process.threads())
        assert await text_of(client, lambda: client.set_cores(2)) == before
        assert process.cpu_affinity() == every_cpu
    finally:
        await client.stop()
