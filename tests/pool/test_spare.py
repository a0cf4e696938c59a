"""Spare workers: a load finds a process that has started; what dies in reserve is replaced."""

from __future__ import annotations

import os
import signal

import pytest

from axion_llm.pool import spare
from tests.fakes.processes import fake_workers, until
from tests.pool.machinery import MachineMaker

pytestmark = pytest.mark.usefixtures("socket_root")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "REFILL_SECONDS", 0.01)


async def test_the_next_load_takes_the_spare_one(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, spare_workers=1)
    await m.ask("a")
    await until(lambda: m.pool._spares.pids)
    in_reserve = m.pool._spares.pids
    await m.ask("b")
    assert [worker.pid for worker in m.workers[1:2]] == in_reserve
    assert m.state("b") == "ready"
    await until(lambda: len(fake_workers()) == 3)


async def test_one_that_died_in_reserve_is_not_used(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, spare_workers=1)
    await m.ask("a")
    await until(lambda: m.pool._spares.pids)
    os.kill(m.pool._spares.pids[0], signal.SIGKILL)
    await until(lambda: not m.workers[1].is_alive)
    assert len(await m.ask("b")) == 4


async def test_stop_leaves_none(machine: MachineMaker) -> None:
    m = machine({"a": "ok"}, spare_workers=2)
    await m.ask("a")
    await m.pool.stop()
    assert fake_workers() == []
