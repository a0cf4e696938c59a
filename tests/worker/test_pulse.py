"""A worker that hangs is found and killed; one that is slow, idle or stopped together with us is not."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time

import pytest

from axion_llm.errors import WorkerDied
from axion_llm.worker import pulse as pulse_module
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Event, Generate, Load, Sampling
from axion_llm.worker.pulse import Pulse
from tests.fakes.processes import FAKE_COMMAND, has_ended, until

pytestmark = pytest.mark.usefixtures("socket_root")


async def loaded(path: str = "ok", hang_seconds: float = 1.0) -> WorkerClient:
    client = WorkerClient(FAKE_COMMAND, hang_seconds=hang_seconds)
    await client.start()
    await client.load(Load("fake", path), timeout_seconds=10)
    return client


async def ask(client: WorkerClient, prompt: str) -> list[Event]:
    return [event async for event in client.generate(Generate("r", prompt, Sampling()))]


async def test_a_worker_that_hangs_under_a_request_is_killed_and_says_so() -> None:
    client = await loaded()
    pid = client.pid
    assert pid is not None
    with pytest.raises(WorkerDied, match="no progress for 1 s"):
        await ask(client, "tokens=9 hang=1 after=3")
    await until(lambda: has_ended(pid))


async def test_one_that_hangs_without_a_request_is_found_too() -> None:
    client = await loaded()
    assert client.pid is not None
    os.kill(client.pid, signal.SIGSTOP)
    await until(lambda: client.seconds_silent >= 0.5)
    await until(lambda: client.state == "dead")


async def test_an_idle_one_has_a_pulse() -> None:
    client = await loaded()
    await asyncio.sleep(2.5)
    assert client.state == "ready" and client.seconds_silent < 1
    await client.stop()


async def test_a_slow_load_is_no_hang() -> None:
    client = await loaded("slow=2")
    assert client.state == "ready"
    await client.stop()


async def beats(monkeypatch: pytest.MonkeyPatch, written: list[int]) -> float:
    """Seconds of silence after a look at each of `written`: what the child has done, -1 for no beat."""
    monkeypatch.setattr(pulse_module, "BEAT_SECONDS", 0.01)
    pulse = Pulse()
    watch = asyncio.create_task(pulse.watch(lambda: None))
    for done in written:
        if done >= 0:
            os.write(pulse.fd, struct.pack("<Q", done))
        await asyncio.sleep(0.012)
    silent = pulse.seconds_silent
    watch.cancel()
    pulse.close()
    return silent


async def test_progress_counts_not_the_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await beats(monkeypatch, [1, 2, 3, 4, 5]) <= 0.011
    assert await beats(monkeypatch, [1, 1, 1, 1, 1]) >= 0.02
    assert await beats(monkeypatch, [1, -1, -1, -1, -1]) >= 0.02


async def test_our_own_pause_is_no_silence_of_the_worker() -> None:
    client = await loaded()
    time.sleep(2)  # noqa: ASYNC251  the whole event loop stands still, as when the machine is suspended
    await asyncio.sleep(0.1)
    assert client.seconds_silent < 1
    await client.stop()
