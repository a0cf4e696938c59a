"""What a load costs others: the benchmark orders it in the middle of a stream."""

from __future__ import annotations

import random

import pytest

from axion_llm.bench import load
from axion_llm.bench.client import BenchError
from tests.fakes.fake_pool import Script, spec
from tests.servers.test_guard import running


async def test_the_load_falls_into_the_stream_and_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SECONDS_BEFORE", 0.1)
    with running() as server:
        url = server.urls["standard"] + "/v1"
        server.pool.specs = [spec("m0"), spec("m1")]
        server.pool.script = Script([f"{i} " for i in range(20)], delay=0.03)
        gap_ms, load_ms = await load.longest_gap_ms(url, random.Random(0), with_load=False)
        assert 30 <= gap_ms < 1000 and load_ms == 0 and server.pool.orders == []
        server.pool.load_seconds = 0.05
        gap_ms, load_ms = await load.longest_gap_ms(url, random.Random(0), with_load=True)
        assert 30 <= gap_ms < 1000 and load_ms >= 50
        assert server.pool.orders == [("load", "m1"), ("unload", "m1", False)]


async def test_an_order_that_is_refused_is_an_error_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SECONDS_BEFORE", 0.0)
    with running() as server:
        server.pool.specs = [spec("m0")]
        with pytest.raises(BenchError, match="HTTP 404"):
            await load.longest_gap_ms(server.urls["standard"] + "/v1", random.Random(0), with_load=True)
