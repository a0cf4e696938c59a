"""The serving benchmark's arithmetic, and its load generator against one of our servers."""

import pytest

from axion_llm.bench.client import BenchError, Trace, get, stream_chat
from axion_llm.bench.serve import Loop, Point, as_records, measure, with_loop

ROUND = [
    Trace(sent=0.0, pieces=[0.1, 0.2, 0.5], end=0.5, completion_tokens=4),
    Trace(sent=0.5, pieces=[0.2, 0.4], end=0.5, completion_tokens=6),
]


def test_throughput_is_all_tokens_over_the_time_from_first_request_to_last_end() -> None:
    point = measure("ours", [ROUND])
    assert point.tokens_per_second == pytest.approx(10 / 1.0)
    assert point.gap_max_ms == pytest.approx(300)
    assert point.ttft_p50_ms == pytest.approx(150)


def test_the_last_side_of_each_number_of_streams_is_what_the_ratio_is_to() -> None:
    points = [
        Point(side, n, speed, 0, 0, 0, 0) for n, side, speed in [(1, "a", 30), (1, "b", 20), (4, "a", 5), (4, "b", 10)]
    ]
    assert [r["ratio"] for r in as_records(points)] == [1.5, 1.0, 0.5, 1.0]


def test_time_outside_decode_is_the_difference_of_two_readings() -> None:
    point = with_loop(measure("ours", [ROUND]), Loop(10, 1.0, 0.9), Loop(30, 3.0, 2.7))
    assert (point.outside_ms, point.outside_share) == (pytest.approx(10), pytest.approx(0.1))


async def test_the_load_generator_reads_our_stream(base_url: str) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
    trace = await stream_chat(f"{base_url}/v1", body)
    assert trace.text and trace.completion_tokens > 0 and 0 < trace.ttft <= trace.end


async def test_an_error_of_the_server_is_an_error_of_the_benchmark(base_url: str) -> None:
    with pytest.raises(BenchError, match="HTTP 404"):
        await stream_chat(f"{base_url}/v1", {"model": "nobody", "messages": [{"role": "user", "content": "Hi"}]})


async def test_nobody_listens() -> None:
    assert await get("http://127.0.0.1:1/health") == (0, "")
