"""Places in the pool: who makes room for whom, who waits and for how long, who is unloaded."""

from __future__ import annotations

import asyncio

import pytest

from axion_llm.errors import (
    InsufficientMemory,
    Overloaded,
)
from axion_llm.pool.machine import Memory
from tests.fakes.processes import fake_workers, until
from tests.pool.machinery import GIB, LONG, MachineMaker

pytestmark = pytest.mark.usefixtures("socket_root")


async def test_the_least_recently_used_idle_model_makes_room(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok", "c": "ok"}, max_loaded=2)
    await m.loaded("a", "b", "a", "c")
    assert m.states() == ["ready", "available", "ready"]
    assert len(fake_workers()) == 2


async def test_a_busy_model_is_never_unloaded(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok", "c": "ok"}, max_loaded=2)
    await m.loaded("a", "b")
    stream = m.asking("a", "tokens=50 delay=0.01")
    await asyncio.sleep(0.05)
    await m.ask("c")
    assert m.states() == ["ready", "available", "ready"]
    assert len(await stream) == 52


async def test_when_all_are_busy_a_request_waits_for_one_to_get_idle(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1)
    stream = m.asking("a", "tokens=30 delay=0.01")
    await until(lambda: m.state("a") == "ready")
    waiting = m.asking("b")
    await asyncio.sleep(0.1)
    assert m.states() == ["ready", "loading"] and not stream.done()
    assert len(await waiting) == 4
    assert len(stream.result()) == 32


async def test_those_who_wait_come_in_their_order(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok", "c": "ok", "d": "ok"}, max_loaded=1)
    order: list[str] = []

    async def ask(name: str) -> None:
        await m.ask(name, "tokens=5 delay=0.01")
        order.append(name)

    tasks = []
    for name in "abcd":
        tasks.append(asyncio.create_task(ask(name)))
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    assert order == list("abcd")


async def test_a_wait_for_a_place_has_an_end(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1, room_wait_seconds=1.0)
    stream = m.asking("a", LONG)
    await until(lambda: m.state("a") == "ready")
    with pytest.raises(Overloaded, match="no place for it in 1 s"):
        await m.ask("b")
    stream.cancel()


async def test_memory_is_made_by_unloading_and_waited_for(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok", "c": "ok"}, room_wait_seconds=1.0)
    m.need = {"a": 4 * GIB, "b": 4 * GIB, "c": 5 * GIB}
    await m.loaded("a", "b")
    m.memory = Memory(2 * GIB, 16 * GIB)
    stream = m.asking("b", LONG)
    waiting = m.asking("c")
    await until(lambda: m.state("a") == "available")
    with pytest.raises(InsufficientMemory, match="did not get free"):
        await waiting  # our made-up machine did not notice that a has gone
    m.memory = Memory(6 * GIB, 16 * GIB)
    await m.ask("c")
    assert m.states() == ["available", "ready", "ready"]
    stream.cancel()


async def test_a_load_that_still_waits_for_room_is_given_up_when_all_have_left(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1)
    stream = m.asking("a", LONG)
    await until(lambda: m.state("a") == "ready")
    waiting = m.asking("b")
    await asyncio.sleep(0.1)
    waiting.cancel()
    await until(lambda: m.state("b") == "failed")
    stream.cancel()
    await asyncio.wait({stream})
    assert len(m.workers) == 1


async def test_a_request_for_a_model_that_is_being_unloaded_loads_it_again(machine: MachineMaker) -> None:
    m = machine({"a": "stubborn=1", "b": "ok"}, max_loaded=1)
    await m.loaded("a")
    other = m.asking("b", "tokens=20 delay=0.01")
    await until(lambda: m.workers[0].state == "stopping")
    assert len(await m.ask("a")) == 4
    assert len(await other) == 22


async def test_unloads_after_the_idle_time(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, idle_unload_seconds=0.4)
    await m.pool.start()
    stream = m.asking("b", LONG)
    await m.loaded("a")
    await asyncio.sleep(0.1)
    assert m.state("a") == "ready"
    await until(lambda: m.state("a") == "available")
    await asyncio.sleep(0.3)
    assert m.state("b") == "ready"
    stream.cancel()
    await until(lambda: m.state("b") == "available")
    await until(lambda: fake_workers() == [])


async def test_a_cancelled_request_frees_its_sequence(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    stream = m.asking("a", LONG)
    await until(lambda: m.state("a") == "ready")
    await asyncio.sleep(0.05)
    stream.cancel()
    await asyncio.wait({stream})
    async with m.pool.lease("a") as model:
        assert (await model.stats()).num_running == 0
