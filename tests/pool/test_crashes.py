"""Processes that end or hang under their requests: the requests go on, others do not notice, and nothing loops."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from axion_llm.errors import CrashedInLoad, ModelUnavailable, Quarantined, ServiceError, WorkerDied
from axion_llm.pool import breaker, caretaker
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Accepted, Event, Finished, Generate, Piece, Tokenize
from tests.fakes.processes import until
from tests.pool.machinery import Machine, MachineMaker

pytestmark = pytest.mark.usefixtures("socket_root")

SLOWLY = "tokens=40 delay=0.01"


def text_of(events: list[Event]) -> str:
    assert isinstance(events[0], Accepted) and isinstance(events[-1], Finished)
    return "".join(event.text for event in events if isinstance(event, Piece | Finished))


def text(num_tokens: int) -> str:
    return "".join(f"t{i} " for i in range(num_tokens))


def kill(m: Machine, number: int, signum: signal.Signals = signal.SIGKILL) -> None:
    pid = m.workers[number].pid
    assert pid is not None
    os.kill(pid, signum)


async def test_streams_of_a_killed_worker_go_on_and_others_do_not_notice(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"})
    await m.loaded("a", "b")
    streams = [m.asking("a", SLOWLY), m.asking("a", SLOWLY), m.asking("b", SLOWLY)]
    await asyncio.sleep(0.15)
    kill(m, 0)
    assert [text_of(events) for events in await asyncio.gather(*streams)] == [text(40)] * 3
    assert len(m.workers) == 3 and m.pool.accounts()["a"].num_crashes == 1


async def test_a_hung_worker_is_replaced_under_its_requests(machine: MachineMaker) -> None:
    m = machine({"a": "ok"}, hang_seconds=1)
    await m.ask("a")
    stream = m.asking("a", SLOWLY)
    await asyncio.sleep(0.15)
    kill(m, 0, signal.SIGSTOP)
    await until(lambda: m.status("a").seconds_silent >= 0.5)
    assert text_of(await stream) == text(40)


async def test_a_request_that_kills_its_worker_does_it_twice_at_most(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    with pytest.raises(WorkerDied, match="SIGABRT"):
        await m.ask("a", "tokens=9 die=6 after=4")
    assert len(m.workers) == 2
    await m.ask("a")


async def test_a_request_that_kills_does_not_take_the_others_with_it(machine: MachineMaker) -> None:
    """Six streams and the killer: each stream gets its whole text, and the model takes requests at once after it."""
    m = machine({"a": "ok"})
    await m.ask("a")
    streams = [m.asking("a", SLOWLY) for _ in range(6)]
    await asyncio.sleep(0.15)
    began = time.monotonic()
    with pytest.raises(Quarantined, match="alone"):
        await m.ask("a", "tokens=9 die=6 after=2")
    late = m.asking("a", "tokens=3 late=1")
    assert [text_of(events) for events in await asyncio.gather(*streams)] == [text(40)] * 6
    assert text_of(await late) == text(3)
    assert len(m.workers) == 3  # the first, the one of the trial, the one for all
    assert time.monotonic() - began < 30
    await until(lambda: m.pool.accounts()["a"].num_crashes == 2)
    assert m.pool._slots["a"].breaker.num_crashes(time.monotonic()) == 0


async def test_a_request_on_trial_is_alone_in_the_process(
    machine: MachineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[int] = []
    together: list[tuple[bool, int]] = []
    real = WorkerClient.generate

    async def watched(self: WorkerClient, request: Generate) -> AsyncGenerator[Event, None]:
        running.append(1)
        try:
            async with aclosing(real(self, request)) as events:
                async for event in events:
                    together.append(("~2" in request.request_id, len(running)))
                    yield event
        finally:
            running.pop()

    monkeypatch.setattr(WorkerClient, "generate", watched)
    m = machine({"a": "ok"})
    await m.ask("a")
    streams = [m.asking("a", SLOWLY) for _ in range(3)]
    await asyncio.sleep(0.15)
    kill(m, 0)
    assert [text_of(events) for events in await asyncio.gather(*streams)] == [text(40)] * 3
    assert max(count for _, count in together) == 3
    second_tries = [count for is_second, count in together if is_second]
    assert second_tries[:5] == [1] * 5


async def test_the_same_request_is_not_run_a_third_time(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    for _ in range(3):
        with pytest.raises(Quarantined):
            await m.ask("a", "exit=1")
    await until(lambda: m.pool.accounts()["a"].num_crashes == 2)
    await m.ask("a")


async def test_a_model_that_convicts_one_request_after_the_other_is_what_is_wrong(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    for name in "ab":
        with pytest.raises(Quarantined):
            await m.ask("a", f"exit=1 name={name}")
    await until(lambda: m.pool.accounts()["a"].num_crashes == 4)
    assert m.pool._slots["a"].breaker.num_crashes(time.monotonic()) == 2


async def test_a_question_is_tried_alone_too(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    await m.ask("a")
    stream = m.asking("a", SLOWLY)
    await asyncio.sleep(0.15)
    async with m.pool.lease("a") as model:
        with pytest.raises(Quarantined):
            await model.tokenize(Tokenize("question", "exit=1"))
    assert text_of(await stream) == text(40)


async def test_the_next_load_waits_longer_after_each_crash(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    for name in "ab":  # the first one's fault is its own
        with pytest.raises(WorkerDied):
            await m.ask("a", f"exit=1 name={name}")
    began = time.monotonic()
    await m.ask("a")
    assert time.monotonic() - began > 0.5


async def test_a_model_that_crashes_again_and_again_rests(
    machine: MachineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "MAX_CRASHES", 2)
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 1.0)
    m = machine({"a": "ok", "b": "ok"})
    for name in "ab":
        with pytest.raises(WorkerDied):
            await m.ask("a", f"exit=1 name={name}")
    with pytest.raises(ModelUnavailable, match="crashed 2 times") as refused:
        await m.ask("a")
    assert 0 < refused.value.retry_after_seconds <= 1
    assert m.state("a") == "failed" and "crashed 2 times" in str(m.status("a").error)
    await m.ask("b")
    await asyncio.sleep(1.1)
    await m.ask("a")
    assert m.state("a") == "ready"


async def test_a_crash_in_a_load_is_tried_once_more(machine: MachineMaker) -> None:
    m = machine({"a": "slow=0.5"})
    waiting = [asyncio.create_task(m.ask("a")) for _ in range(3)]
    await until(lambda: bool(m.workers) and m.workers[0].pid is not None and m.state("a") == "loading")
    await asyncio.sleep(0.2)
    kill(m, 0)
    await asyncio.gather(*waiting)
    assert len(m.workers) == 2


async def test_crashes_in_loads_count(machine: MachineMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "MAX_CRASHES", 2)
    m = machine({"a": "die=6"})
    with pytest.raises(CrashedInLoad, match="SIGABRT"):
        await m.ask("a")
    assert m.pool.accounts()["a"].num_crashes == 2
    with pytest.raises(ModelUnavailable, match=r"Last: .*while it loaded the model.*SIGABRT"):
        await m.ask("a")


async def test_a_warm_model_comes_back_without_a_request(machine: MachineMaker) -> None:
    m = machine({"a": "ok"}, warm=1)
    await m.pool.start()
    await until(m.pool.is_ready)
    kill(m, 0)
    await until(lambda: len(m.workers) == 2 and m.state("a") == "ready")


# ---- files that change


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Looked at all the time."""
    monkeypatch.setattr(caretaker, "CHECK_SECONDS", 0.02)
    path = tmp_path / "ok"
    path.write_bytes(b"old")
    return path


async def using(machine: MachineMaker, file: Path) -> Machine:
    m = machine({"a": str(file)})
    await m.pool.start()
    await m.ask("a")
    return m


def replace(file: Path) -> None:
    new = file.with_name("new")
    new.write_bytes(b"new")
    new.rename(file)


async def test_a_file_that_was_replaced_is_loaded_anew_when_its_requests_have_ended(
    machine: MachineMaker, file: Path
) -> None:
    m = await using(machine, file)
    stream = m.asking("a", SLOWLY)
    await asyncio.sleep(0.05)
    replace(file)
    await asyncio.sleep(0.1)
    late = m.asking("a")
    assert text_of(await stream) == text(40) and m.workers[0].state in ("ready", "stopping")
    await late
    assert len(m.workers) == 2 and m.pool.accounts()["a"].num_unloads == {"changed": 1}


async def test_an_idle_model_whose_file_was_replaced_is_unloaded(machine: MachineMaker, file: Path) -> None:
    m = await using(machine, file)
    replace(file)
    await until(lambda: m.state("a") == "available")


async def test_a_file_that_is_written_to_while_in_use_is_loaded_anew_at_once(machine: MachineMaker, file: Path) -> None:
    m = await using(machine, file)
    stream = m.asking("a", SLOWLY)
    await asyncio.sleep(0.05)
    await asyncio.to_thread(file.write_bytes, b"other weights")
    await until(lambda: len(m.workers) == 2)
    assert text_of(await stream) == text(40)


async def test_a_file_that_vanished_is_no_matter_for_a_loaded_model(machine: MachineMaker, file: Path) -> None:
    m = await using(machine, file)
    await asyncio.to_thread(file.unlink)
    await asyncio.sleep(0.1)
    await m.ask("a")
    assert len(m.workers) == 1


# ---- a machine that has run full


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk to fill")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_full_disk_fails_the_load_with_the_reason_and_the_next_one_works(
    machine: MachineMaker, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = machine({"a": "ok", "b": "ok"})
    await m.ask("a")
    with monkeypatch.context() as full:
        full.setattr(tempfile, "tempdir", str(full_disk))
        with pytest.raises(ServiceError, match="No space left"):
            await m.ask("b")
        await m.ask("a")
    await m.ask("b")
