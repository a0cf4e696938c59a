"""What an administrator orders: load, unload, pin; and the account of what happened."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from axion_llm.errors import ModelInUse, ModelLoadError, ModelNotFound, Overloaded, ShuttingDown
from tests.fakes.processes import fake_workers, until
from tests.pool.machinery import LONG, MachineMaker

pytestmark = pytest.mark.usefixtures("socket_root")


async def test_load_returns_when_it_is_loaded_and_makes_room(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.1", "b": "ok"}, max_loaded=1)
    await m.loaded("b")
    await m.pool.load("a")
    assert m.states() == ["ready", "available"]
    assert m.pool.accounts()["b"].num_unloads == {"evicted": 1}


async def test_unload_returns_when_the_process_is_gone(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    await m.loaded("a")
    await m.pool.unload("a")
    assert m.states() == ["available"] and fake_workers() == []
    await m.pool.unload("a")  # nothing to do
    assert m.pool.accounts()["a"].num_unloads == {"asked": 1}
    assert len(await m.ask("a")) == 4


async def test_unload_ends_no_request_unless_forced(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    stream = m.asking("a", LONG)
    await until(lambda: m.state("a") == "ready")
    with pytest.raises(ModelInUse, match=r"requests in flight \(1\)"):
        await m.pool.unload("a")
    assert m.states() == ["ready"] and not stream.done()
    await m.pool.unload("a", force=True)
    with pytest.raises(ShuttingDown, match="unloaded"):
        await stream
    assert m.states() == ["available"]


async def test_a_model_that_is_being_loaded_is_not_unloaded(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.2"})
    ask = m.asking("a")
    await until(lambda: m.state("a") == "loading")
    with pytest.raises(ModelInUse, match="being loaded"):
        await m.pool.unload("a", force=True)
    assert len(await ask) == 4


async def test_orders_for_an_unknown_model(machine: MachineMaker) -> None:
    pool = machine({"a": "ok"}).pool
    for order in (pool.load("b"), pool.unload("b")):
        with pytest.raises(ModelNotFound):
            await order
    with pytest.raises(ModelNotFound):
        pool.pin("b", True)


async def test_a_pinned_model_stays_and_an_unpinned_one_goes(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok", "c": "ok"}, max_loaded=2)
    await m.loaded("a", "b")
    m.pool.pin("a", True)
    assert m.status("a").is_pinned and not m.status("b").is_pinned
    await m.loaded("c")
    assert m.states() == ["ready", "available", "ready"]
    m.pool.pin("a", False)
    await m.loaded("b")
    assert m.states() == ["available", "ready", "ready"]


async def test_when_all_places_are_pinned_the_error_says_what_to_do(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1)
    await m.loaded("a")
    m.pool.pin("a", True)
    with pytest.raises(Overloaded, match=r"pinned models \(a\): unpin"):
        await m.ask("b")


async def test_an_unpin_lets_a_waiting_load_go_on(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok", "c": "ok"}, max_loaded=2)
    await m.loaded("a")
    m.pool.pin("a", True)
    busy = m.asking("b", LONG)
    await until(lambda: m.state("b") == "ready")
    waiting = m.asking("c")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    m.pool.pin("a", False)
    assert len(await waiting) == 4 and m.states() == ["available", "ready", "ready"]
    busy.cancel()


async def test_a_status_says_who_uses_a_model_and_since_when_nobody_does(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    assert m.status("a").idle_seconds is None and m.status("a").pid is None
    stream = m.asking("a", "tokens=30 delay=0.01")
    await until(lambda: m.state("a") == "ready")
    assert m.status("a").num_requests == 1 and m.status("a").pid == m.workers[0].pid
    await stream
    idle_seconds = m.status("a").idle_seconds
    assert m.status("a").num_requests == 0 and idle_seconds is not None and idle_seconds < 1


async def test_the_account_of_a_model_outlives_its_processes(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "fail=model_load_failed"})
    stream = m.asking("a", "tokens=30 delay=0.01")
    await until(lambda: m.state("a") == "ready")
    pid = m.workers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await stream
    await m.pool.unload("a")
    with pytest.raises(ModelLoadError):
        await m.ask("b")
    a, b = m.pool.accounts()["a"], m.pool.accounts()["b"]
    assert (a.num_loads, a.num_crashes, a.num_restarts, a.num_unloads) == (2, 1, 1, {"asked": 1})
    assert 0 < a.last_load_seconds < a.load_seconds  # type: ignore[operator]
    assert (b.num_loads, b.num_failed_loads) == (0, 1)
