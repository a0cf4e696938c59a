"""The pool over real worker processes without models: whatever loads, fails, dies or leaves, others go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from axion_llm.errors import (
    CrashedInLoad,
    EngineError,
    InsufficientMemory,
    ModelLoadError,
    ModelNotFound,
    ServiceError,
    ShuttingDown,
    WorkerDied,
)
from axion_llm.models.spec import ModelSpec, Source
from axion_llm.pool import loader
from axion_llm.pool.interface import ModelPool
from axion_llm.pool.machine import Memory
from tests.fakes.processes import fake_workers, num_fds, until
from tests.pool.machinery import GIB, LONG, MachineMaker

pytestmark = pytest.mark.usefixtures("socket_root")


# ---- loads


async def test_loads_on_demand_and_stays_loaded(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"})
    pool: ModelPool = m.pool
    assert [status.state for status in pool.models()] == ["available", "available"]
    assert len(await m.ask("a")) == 4
    await m.ask("a")
    assert m.states() == ["ready", "available"]
    assert list(pool.running()) == ["a"]
    info = m.status("a").info
    assert info is not None and info.description == "a"
    assert len(m.workers) == 1


async def test_many_requests_at_once_share_one_load(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.2"})
    asks = [m.asking("a", f"tokens={n}") for n in range(50)]
    await asyncio.sleep(0.1)
    assert m.states() == ["loading"]
    assert [len(events) - 2 for events in await asyncio.gather(*asks)] == list(range(50))
    assert len(m.workers) == 1


async def test_an_unknown_name(machine: MachineMaker) -> None:
    with pytest.raises(ModelNotFound):
        await machine({"a": "ok"}).ask("b")


async def test_a_client_that_leaves_does_not_end_the_load_for_others(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.3"})
    first, second = m.asking("a"), m.asking("a")
    await asyncio.sleep(0.1)
    first.cancel()
    assert len(await second) == 4
    assert first.cancelled() and len(m.workers) == 1


async def test_a_load_goes_on_when_all_have_left(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.2"})
    only = m.asking("a")
    await until(lambda: m.workers)
    only.cancel()
    await until(lambda: m.state("a") == "ready")


async def test_a_load_that_fails_after_all_have_left_is_no_unhandled_error(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.2,fail=model_load_failed"})
    only = m.asking("a")
    await until(lambda: m.workers)
    only.cancel()
    await until(lambda: m.state("a") == "failed")


async def test_a_slow_header_check_does_not_block_the_event_loop(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    m.estimating = lambda: time.sleep(0.3)
    ask = m.asking("a")
    await asyncio.sleep(0)
    began = time.monotonic()
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert time.monotonic() - began < 0.3 and not ask.done()
    await ask


async def test_a_slow_load_does_not_hold_up_a_loaded_model(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "slow=0.5"})
    await m.loaded("a")
    slow = m.asking("b")
    await until(lambda: len(m.workers) == 2)
    await m.ask("a")
    assert not slow.done()
    await slow


# ---- loads that fail


async def test_a_missing_model_says_how_to_get_it(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    m.files["a"] = None
    with pytest.raises(ModelLoadError, match="axion-llm pull a"):
        await m.ask("a")
    assert m.status("a").state == "missing"
    m.files["a"] = "ok"
    assert len(await m.ask("a")) == 4


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (Source(path=Path("/m/a.gguf")), "/m/a.gguf does not exist"),
        (Source(package="llm-a"), "llm-a that carries it is not installed"),
    ],
)
def test_what_is_missing_depends_on_the_source(source: Source, text: str) -> None:
    assert text in loader.missing(ModelSpec("a", source, "a.gguf"))


@pytest.mark.parametrize(
    ("file", "error", "text"),
    [
        ("garbage", ModelLoadError, "not a GGUF"),
        ("fail=engine_error", EngineError, "as it was told"),
        ("die=6", CrashedInLoad, "SIGABRT"),
        ("hang=1", ModelLoadError, "not loaded after 0.5 s"),
    ],
)
async def test_a_load_that_fails_fails_all_who_wait_and_can_be_tried_again(
    machine: MachineMaker, file: str, error: type[Exception], text: str
) -> None:
    m = machine({"a": file, "b": "ok"}, load_timeout_seconds=0.5)
    outcomes = await asyncio.gather(m.ask("a"), m.ask("a"), m.ask("b"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [error, error, list]
    assert outcomes[0] is not outcomes[1]
    status = m.status("a")
    assert status.state == "failed" and text in str(status.error) and text in str(outcomes[0])
    m.files["a"] = "ok"
    await m.ask("a")
    assert m.status("a").error is None


async def test_a_mistake_of_ours_in_a_load_is_an_error_not_a_hang(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})

    def fail() -> None:
        raise KeyError("surprise")

    m.estimating = fail
    with pytest.raises(ServiceError, match="surprise"):
        await m.ask("a")
    m.estimating = lambda: None
    await m.ask("a")


async def test_too_big_for_the_memory_says_the_figures(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"})
    m.need["a"] = 5 * GIB
    m.memory = Memory(6 * GIB, 8 * GIB, cgroup_limit_bytes=4 * GIB, cgroup_used_bytes=GIB)
    with pytest.raises(InsufficientMemory) as caught:
        await m.ask("a")
    for figure in (
        "needs 5.00 GiB",
        "3.00 GiB could be freed",
        "6.00 GiB available of 8.00",
        "cgroup 4.00 GiB",
    ):
        assert figure in caught.value.message
    await m.ask("b")
    m.memory = Memory(6 * GIB, 8 * GIB)
    await m.ask("a")


# ---- a worker that dies


async def test_a_dead_worker_holds_no_place(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1)
    with pytest.raises(WorkerDied):
        await m.ask("a", "exit=1")
    await m.ask("b")
    assert m.states() == ["available", "ready"]


# ---- start and stop


async def test_warms_the_first_that_are_here_in_the_background(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "slow=0.2", "c": "ok", "d": "ok"}, warm=2)
    m.files["a"] = None
    assert not m.pool.is_ready()
    await m.pool.start()
    assert not m.pool.is_ready()
    await until(m.pool.is_ready)
    assert m.states() == ["missing", "ready", "ready", "available"]


async def test_is_ready_although_a_warm_model_fails(machine: MachineMaker) -> None:
    m = machine({"a": "fail=model_load_failed", "b": "ok"}, warm=2)
    await m.pool.start()
    await until(m.pool.is_ready)
    assert m.states() == ["failed", "ready"]


async def test_warm_models_do_not_push_each_other_out(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, warm=2)
    m.need = dict.fromkeys("ab", 10 * GIB)
    machine_bytes = iter([16 * GIB])
    m.pool._room._read_memory = lambda: Memory(next(machine_bytes, 6 * GIB), 16 * GIB)
    await m.pool.start()
    await until(m.pool.is_ready)
    assert m.states() == ["ready", "failed"]
    await m.pool._room.unload(m.pool._slots["a"], "asked", "for the test")


async def test_a_request_joins_the_warm_up(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.2"}, warm=1)
    await m.pool.start()
    await until(lambda: m.workers)
    await m.ask("a")
    assert len(m.workers) == 1


async def test_stop_ends_streams_loads_and_waits(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "hang=1", "c": "ok"}, max_loaded=2)
    await m.pool.start()
    stream, loading = m.asking("a", LONG), m.asking("b")
    await until(lambda: m.state("a") == "ready" and len(fake_workers()) == 2)
    waiting = m.asking("c")
    await asyncio.sleep(0.1)
    await m.pool.stop()
    assert fake_workers() == []
    outcomes = await asyncio.gather(stream, loading, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ShuttingDown] * 3
    with pytest.raises(ShuttingDown):
        await m.ask("a")
    assert not m.pool.is_ready()


async def test_stop_right_after_the_start(machine: MachineMaker) -> None:
    m = machine({"a": "ok"}, warm=1)
    await m.pool.start()
    ask = m.asking("a")
    await asyncio.sleep(0)
    await m.pool.stop()
    with pytest.raises(ShuttingDown):
        await ask


async def test_file_descriptors_stay_flat_over_many_lives(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, max_loaded=1)
    await m.loaded("a", "b")
    before = num_fds()
    for _ in range(5):
        await m.loaded("a", "b")
    await until(lambda: num_fds() <= before)
    assert len(m.workers) == 12
