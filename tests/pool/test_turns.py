"""More models in use than there is room for: they take turns, in batches, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import time

import pytest

from axion_llm.errors import InsufficientMemory
from axion_llm.worker.messages import Finished, Piece
from tests.fakes.processes import until
from tests.pool.machinery import GIB, LONG, Machine, MachineMaker

pytestmark = pytest.mark.usefixtures("socket_root")

SHORT = "tokens=5 delay=0.01"


async def busy_until(m: Machine, name: str, end: asyncio.Event) -> int:
    """One client that asks again and again; how often."""
    count = 0
    while not end.is_set():
        await m.ask(name, SHORT)
        count += 1
    return count


async def test_two_models_in_constant_use_share_one_place_in_batches(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1, turn_seconds=0.5)
    end = asyncio.Event()
    clients = [asyncio.create_task(busy_until(m, name, end)) for name in "aaabbb"]
    await asyncio.sleep(4)
    end.set()
    counts = await asyncio.gather(*clients)
    loads = len(m.workers)
    assert min(counts) > 0
    assert 3 <= loads <= 16
    assert sum(counts) > 4 * loads


async def test_one_that_waits_for_a_stream_without_end_gets_its_turn_and_the_stream_goes_on(
    machine: MachineMaker,
) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1, turn_seconds=0.4)
    long = m.asking("a", "tokens=300 delay=0.01")
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await m.ask("b")
    assert 0.3 < time.monotonic() - began < 3
    events = await long
    assert isinstance(events[-1], Finished)
    assert "".join(e.text for e in events if isinstance(e, Piece)) == "".join(f"t{i} " for i in range(300))
    assert [worker.name for worker in m.workers] == ["a", "b", "a"]


async def test_a_model_keeps_its_place_when_the_one_that_waited_gives_up(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1, turn_seconds=0.3, room_wait_seconds=0.5)
    long = m.asking("a", LONG)
    await until(lambda: m.state("a") == "ready")
    with pytest.raises(Exception, match=r"no place for it in 0\.5 s"):
        await m.ask("b")
    assert len(await m.ask("a")) == 4
    assert len(m.workers) == 1
    long.cancel()


async def test_memory_limit_of_all_models_together(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok", "c": "ok"}, memory_limit=5 * GIB)
    m.need = {"a": 2 * GIB, "b": 2 * GIB, "c": 6 * GIB}
    await m.loaded("a", "b")
    assert m.states() == ["ready", "ready", "available"]
    m.need["b"] = 4 * GIB
    await m.pool.unload("b")
    await m.ask("b")
    assert m.states() == ["available", "ready", "available"]
    with pytest.raises(InsufficientMemory, match=r"memory_limit 5\.00 GiB"):
        await m.ask("c")
