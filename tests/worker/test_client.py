"""The client against a real process that misbehaves when told: whatever happens, everyone gets an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from axion_llm.errors import (
    ContextLengthExceeded,
    EngineError,
    InsufficientMemory,
    ModelLoadError,
    ServiceError,
    ShuttingDown,
    WorkerDied,
)
from axion_llm.worker import launch, link
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Accepted, Event, Finished, Generate, Load, Piece, Sampling
from tests.fakes.processes import FAKE_COMMAND, fake_workers, has_ended, num_fds, until

pytestmark = pytest.mark.usefixtures("socket_root")


def request(prompt: str, request_id: str = "r") -> Generate:
    return Generate(request_id, prompt, Sampling())


def contents(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def collect(client: WorkerClient, prompt: str, request_id: str = "r") -> list[Event]:
    return [event async for event in client.generate(request(prompt, request_id))]


async def first_events(
    client: WorkerClient, prompt: str, count: int
) -> tuple[list[Event], AsyncGenerator[Event, None]]:
    events = client.generate(request(prompt))
    return [await anext(events) for _ in range(count)], events


async def loaded(path: str = "ok", **options: float) -> WorkerClient:
    client = WorkerClient(FAKE_COMMAND, **options)
    await client.start()
    await client.load(Load("fake", path), timeout_seconds=10)
    return client


@pytest.fixture
async def client() -> AsyncIterator[WorkerClient]:
    client = await loaded()
    yield client
    await client.stop()


# ---- start and load


async def test_goes_through_its_states_and_reports_progress(socket_root: Path) -> None:
    client = WorkerClient(FAKE_COMMAND)
    progress: list[float] = []
    states = [client.state]
    await client.start()
    states.append(client.state)
    load = asyncio.create_task(client.load(Load("fake", "slow=0.2", n_ctx=64), 10, progress.append))
    await until(lambda: progress)
    states.append(client.state)
    info = await load
    states.append(client.state)
    await client.stop()
    states.append(client.state)
    assert states == ["starting", "starting", "loading", "ready", "dead"]
    assert progress == [0.5, 1.0]
    assert (info.n_ctx, info.architecture, client.info) == (64, "fake", info)


async def test_the_sockets_directory_is_private_and_gone_once_connected(socket_root: Path) -> None:
    client = WorkerClient(FAKE_COMMAND)
    start = asyncio.create_task(client.start())
    await until(lambda: contents(socket_root))
    (directory,) = contents(socket_root)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    await start
    assert not directory.exists()
    await client.stop()


async def test_starting_does_not_block_the_event_loop() -> None:
    num_ticks = 0

    async def tick() -> None:
        nonlocal num_ticks
        while True:
            await asyncio.sleep(0.001)
            num_ticks += 1

    ticker = asyncio.create_task(tick())
    client = await loaded("slow=0.1")
    await client.stop()
    ticker.cancel()
    assert num_ticks > 50


@pytest.mark.parametrize(
    ("code", "error"), [("model_load_failed", ModelLoadError), ("insufficient_memory", InsufficientMemory)]
)
async def test_a_failed_load_is_raised_as_what_it_is(code: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="as it was told"):
        await loaded(f"fail={code}")
    assert fake_workers() == []


async def test_an_abort_while_loading_names_signal_and_last_output() -> None:
    with pytest.raises(ModelLoadError, match=r"(?s)while it loaded.*SIGABRT.*GGML_ASSERT\(told\) failed"):
        await loaded(f"die={int(signal.SIGABRT)}")


async def test_a_load_that_hangs_ends_at_its_timeout() -> None:
    client = WorkerClient(FAKE_COMMAND)
    await client.start()
    began = time.monotonic()
    with pytest.raises(ModelLoadError, match=r"not loaded after 0\.2 s"):
        await client.load(Load("fake", "hang=1"), timeout_seconds=0.2)
    assert time.monotonic() - began < 3
    assert client.state == "dead" and fake_workers() == []


async def test_an_answer_that_is_no_message_ends_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelLoadError, match="SIGKILL"):
        await loaded("nonsense=1")
    assert "made no sense" in caplog.text


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        (
            (sys.executable, "-c", "raise SystemExit('no such module')"),
            ModelLoadError,
            "(?s)exit code 1.*no such",
        ),
        ((sys.executable, "-c", "import time; time.sleep(60)"), WorkerDied, "did not say hello"),
        (("/nonexistent/worker",), ServiceError, "cannot start a worker"),
    ],
)
async def test_a_process_that_does_not_start(command: tuple[str, ...], error: type[Exception], text: str) -> None:
    client = WorkerClient(command, start_seconds=1)
    with pytest.raises(error, match=text):
        await client.start()
    assert client.state == "dead"


async def test_a_worker_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PROTOCOL", "of tomorrow")
    with pytest.raises(ServiceError, match="restart the service"):
        await WorkerClient(FAKE_COMMAND).start()
    assert fake_workers() == []


@pytest.mark.parametrize("path", ["ok", "hang=1"])
async def test_a_cancelled_start_or_load_leaves_nothing(path: str) -> None:
    for delay in (0.0, 0.005, 0.05, 0.5):
        task = asyncio.create_task(loaded(path))
        await asyncio.sleep(delay)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, WorkerClient):  # it was faster
            await outcome.stop()
        assert fake_workers() == []


async def test_stop_during_start() -> None:
    client = WorkerClient(FAKE_COMMAND)
    start = asyncio.create_task(client.start())
    await asyncio.sleep(0)
    await client.stop()
    with pytest.raises((ShuttingDown, WorkerDied)):
        await start
    assert client.state == "dead"


# ---- requests


async def test_a_request_is_accepted_pieces_finished(client: WorkerClient) -> None:
    events = await collect(client, "tokens=3")
    assert [type(event) for event in events] == [Accepted, Piece, Piece, Piece, Finished]
    assert "".join(event.text for event in events if isinstance(event, Piece)) == "t0 t1 t2 "


async def test_many_requests_keep_their_events_apart(client: WorkerClient) -> None:
    answers = await asyncio.gather(*(collect(client, f"tokens={n}", f"r{n}") for n in range(40)))
    assert [len(events) - 2 for events in answers] == list(range(40))
    assert all(event.request_id == f"r{n}" for n, events in enumerate(answers) for event in events)


async def test_a_rejected_request_raises_with_its_field(client: WorkerClient) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        await collect(client, "reject=context_length_exceeded")
    assert caught.value.param == "messages"


async def test_a_request_that_fails_midway_raises_after_its_pieces(client: WorkerClient) -> None:
    seen, events = await first_events(client, "tokens=9 fail=engine_error after=2", 3)
    with pytest.raises(EngineError):
        await anext(events)
    assert [type(event) for event in seen] == [Accepted, Piece, Piece]


async def test_closing_early_cancels_at_the_worker(client: WorkerClient) -> None:
    _, events = await first_events(client, "tokens=100000 delay=0.005", 3)
    assert (await client.stats()).num_running == 1
    await events.aclose()
    assert (await client.stats()).num_running == 0
    assert (await collect(client, "tokens=1"))[-1] == Finished("r", "stop", "", 1, 1, 0)


async def test_a_cancelled_consumer_cancels_at_the_worker(client: WorkerClient) -> None:
    task = asyncio.create_task(collect(client, "tokens=100000 delay=0.005"))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task})
    assert (await client.stats()).num_running == 0


async def test_a_consumer_that_stops_reading_is_cancelled(
    client: WorkerClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "MAX_WAITING_EVENTS", 20)
    monkeypatch.setattr(link, "MAX_UNREAD_SECONDS", 0.05)
    _, events = await first_events(client, "tokens=100000 delay=0.002", 1)
    await until(lambda: "nobody reads request r" in caplog.text)
    await asyncio.sleep(0.05)
    assert (await client.stats()).num_running == 0
    late = [event async for event in events]
    assert len(late) > 20 and late[-1].reason == "cancelled"  # type: ignore[union-attr]


async def test_a_slow_consumer_is_not_cancelled(client: WorkerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_WAITING_EVENTS", 5)
    monkeypatch.setattr(link, "MAX_UNREAD_SECONDS", 0.5)
    last = None
    async for event in client.generate(request("tokens=100 delay=0.001")):
        last = event
        await asyncio.sleep(0.005)
    assert isinstance(last, Finished) and last.reason == "stop"


async def test_a_request_id_in_use_is_refused(client: WorkerClient) -> None:
    _, events = await first_events(client, "tokens=100000 delay=0.01", 1)
    with pytest.raises(EngineError, match="in use"):
        await collect(client, "tokens=1")
    await events.aclose()


# ---- ends


@pytest.mark.parametrize(
    ("end", "named"),
    [("die=9", "SIGKILL"), ("die=6", r"(?s)SIGABRT.*GGML_ASSERT"), ("exit=3", "exit code 3")],
)
async def test_its_death_in_mid_stream_reaches_every_request_quickly(end: str, named: str) -> None:
    client = await loaded()
    others = [asyncio.create_task(collect(client, "tokens=10000 delay=0.05", f"o{n}")) for n in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(WorkerDied, match=named):
        await collect(client, f"tokens=9 {end} after=1")
    began = time.monotonic()
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WorkerDied] * 3
    assert time.monotonic() - began < 1
    await until(lambda: client.state == "dead")
    with pytest.raises(WorkerDied):
        await collect(client, "tokens=1")


async def test_kill_9_from_outside(client: WorkerClient) -> None:
    _, events = await first_events(client, "tokens=10000 delay=0.01", 3)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        [event async for event in events]
    assert not client.is_alive


async def test_what_it_says_right_before_its_end_still_counts() -> None:
    with pytest.raises(InsufficientMemory, match="as it was told"):
        await loaded("fail=insufficient_memory,quit=1")


async def test_stop_ends_requests_with_shutting_down(client: WorkerClient) -> None:
    _, events = await first_events(client, "tokens=10000 delay=0.01", 2)
    await client.stop()
    with pytest.raises(ShuttingDown):
        [event async for event in events]
    with pytest.raises(WorkerDied):
        await client.stats()


async def test_stop_asks_then_terminates_then_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "TERM_SECONDS", 0.1)
    client = await loaded("stubborn=1", grace_seconds=0.1)
    pid = client.pid
    began = time.monotonic()
    await client.stop()
    assert 0.2 <= time.monotonic() - began < 2
    assert pid is not None and has_ended(pid)


async def test_stop_of_a_willing_worker_needs_no_force(client: WorkerClient) -> None:
    began = time.monotonic()
    await asyncio.gather(client.stop(), client.stop())
    await client.stop()
    assert time.monotonic() - began < 2 and client.state == "dead"


async def test_stop_before_start() -> None:
    client = WorkerClient(FAKE_COMMAND)
    await client.stop()
    assert client.state == "dead"


async def test_a_hung_worker_answers_no_ping(client: WorkerClient) -> None:
    _, events = await first_events(client, "tokens=3 hang=1 after=1", 2)
    await asyncio.sleep(0.1)
    with pytest.raises(EngineError, match="not answered"):
        await client.stats(timeout_seconds=0.1)
    await events.aclose()
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)


async def test_nothing_is_loaded_twice_or_asked_too_early(client: WorkerClient) -> None:
    early = WorkerClient(FAKE_COMMAND)
    with pytest.raises(EngineError):
        await collect(early, "tokens=1")
    with pytest.raises(EngineError):
        _ = early.info
    await early.stop()
    with pytest.raises(EngineError, match="is ready, not starting"):
        await client.load(Load("fake", "ok"), timeout_seconds=1)
    assert len(await collect(client, "tokens=1")) == 3


async def test_file_descriptors_stay_flat_over_many_lives() -> None:
    await (await loaded()).stop()
    before = num_fds()
    for _ in range(20):
        client = await loaded()
        await collect(client, "tokens=2")
        await client.stop()
    await until(lambda: num_fds() <= before)


async def test_a_parent_killed_9_leaves_neither_worker_nor_directory(socket_root: Path) -> None:
    script = (
        "import asyncio, tempfile\n"
        f"tempfile.tempdir = {str(socket_root)!r}\n"
        "from tests.worker.test_client import loaded\n"
        "async def main():\n"
        "    print((await loaded()).pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert not has_ended(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: has_ended(pid))


# ---- parts


def test_socket_paths_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    directory = launch.private_directory()
    try:
        assert directory.parent == Path("/tmp")
        assert len(bytes(directory / "s")) <= 107
        assert list(deep.iterdir()) == []
    finally:
        directory.rmdir()
