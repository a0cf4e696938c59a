"""The latency benchmark: the same for each side, patient with a full server, and its comparison of two runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from axion_llm.bench import latency
from axion_llm.bench.client import BenchError, Trace
from axion_llm.bench.latency import Result, Seen, Workload
from axion_llm.cli.main import cli
from axion_llm.errors import Overloaded, ServiceError
from tests.fakes.fake_pool import Script
from tests.servers.conftest import LiveServer
from tests.servers.test_guard import running

WORKLOAD = Workload("fake", num_requests=6, concurrency=2, num_rounds=2, max_seconds=30)


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with running() as started:
        yield started


def url(server: LiveServer) -> str:
    return server.urls["standard"] + "/v1"


def result(side: str, seconds: float, stdev: float, rate: float) -> Result:
    return Result(side, 10, 0, seconds, stdev, seconds, seconds, seconds / 2, 0.1, rate)


def run(*arguments: str) -> str:
    return CliRunner().invoke(cli, ["bench", *arguments], catch_exceptions=False, standalone_mode=False).stdout


async def test_each_side_gets_the_same_requests_and_no_more_at_a_time_than_asked_for(server: LiveServer) -> None:
    server.pool.script = Script(delay=0.01)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, server.pool.num_running)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    results = await latency.measure({"a": url(server), "b": url(server)}, WORKLOAD, lambda _: None)
    watching.cancel()
    assert [(r.side, r.num_requests, r.num_deferred) for r in results] == [("a", 12, 0), ("b", 12, 0)]
    assert most == 2
    prompts = [request.prompt for request in server.pool.requests]
    assert sorted(map(str, prompts[:6])) == sorted(map(str, prompts[6:12])) != sorted(map(str, prompts[12:18]))


async def test_a_full_server_is_left_alone_for_a_while(server: LiveServer) -> None:
    server.pool.script = Script(reject=Overloaded("full"))

    async def make_room() -> None:
        await asyncio.sleep(0.3)
        server.pool.script = Script()

    small = Workload("fake", num_requests=2, concurrency=2, num_rounds=1)
    [found], _ = await asyncio.gather(latency.measure({"a": url(server)}, small, lambda _: None), make_room())
    assert (found.num_requests, found.num_deferred) == (2, 2)


async def test_no_request_is_sent_after_its_time(server: LiveServer) -> None:
    server.pool.script = Script(delay=0.1)
    said: list[str] = []
    long = Workload("fake", num_requests=4, concurrency=2, num_rounds=50, max_seconds=2.0)
    [found] = await latency.measure({"a": url(server)}, long, said.append)
    assert 4 <= found.num_requests < 16 and found.num_requests % 4 == 0  # whole rounds only
    assert f"2 s are over: {found.num_requests // 4} of 50 rounds count" in said
    with pytest.raises(BenchError, match="a: no round was complete in time"):
        await latency.measure({"a": url(server)}, replace(long, num_requests=100, max_seconds=0.5), said.append)


async def test_too_many_at_a_time_are_refused() -> None:
    with pytest.raises(BenchError, match="1 to 8"):
        await latency.measure({}, Workload(concurrency=9), lambda _: None)


def test_the_figures_of_a_side() -> None:
    traces = [Trace(0.0, [0.1, 0.4], end=1.0, completion_tokens=10), Trace(0.0, [0.3], end=3.0, completion_tokens=30)]
    found = latency.summary("a", Seen(traces, busy_seconds=4.0))
    assert (found.mean_seconds, found.stdev_seconds, found.tokens_per_second) == (2.0, 1.0, 10.0)
    assert (found.ttft_p50_seconds, found.gap_max_seconds, found.p95_seconds) == (0.2, pytest.approx(0.3), 3.0)


def test_a_change_is_better_when_latency_falls_and_throughput_rises() -> None:
    changes = {c.what: c for c in latency.compare(result("old", 22.62, 31.32, 7.63), result("new", 4.01, 1.14, 10.98))}
    for what, percent in (("average latency", -82.3), ("standard deviation", -96.4), ("throughput", 43.9)):
        assert changes[what].percent == pytest.approx(percent, abs=0.1) and changes[what].is_better
    assert not changes["longest gap"].is_better


def test_a_running_service_is_measured_and_two_results_are_compared(server: LiveServer, tmp_path: Path) -> None:
    options = ("--url", server.urls["standard"], "--model", "fake", "--requests", "2", "--rounds", "1", "--json")
    for name in ("before", "after"):
        (tmp_path / name).write_text(run("latency", *options))
    output = run("compare", str(tmp_path / "before"), str(tmp_path / "after"))
    assert "average latency" in output and "service" in output and "warning" not in output
    changes = json.loads(run("compare", str(tmp_path / "before"), str(tmp_path / "after"), "--json"))
    assert {"before", "after", "percent", "what"} <= set(changes[0])


def test_a_service_in_trouble_is_left_alone(server: LiveServer) -> None:
    with pytest.raises(ServiceError, match="left alone"):
        run("latency", "--url", "http://127.0.0.1:1")
    assert server.pool.requests == []


def test_a_file_that_is_no_result(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(latency.to_json([result("axion", 1, 1, 1)], WORKLOAD, {}))
    bad.write_text('{"results": 5}')
    with pytest.raises(ServiceError, match="is no result of"):
        run("compare", str(good), str(bad))
    with pytest.raises(ServiceError, match="has no side 'stock'; it has axion"):
        run("compare", str(good), str(good), "--after-side", "stock")
