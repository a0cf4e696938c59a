"""/metrics: what is counted, under which labels, and that nothing counted is ever lost."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from axion_llm.pool.report import Account
from axion_llm.servers.telemetry import RATE_SECONDS, Rate
from axion_llm.worker.messages import EngineStats
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import eventually
from tests.servers.test_guard import running

BODY = {"model": "fake", "prompt": "Hi there you", "stream": False}

Labels = dict[str, str]


@pytest.fixture
def fresh() -> Iterator[tuple[httpx.Client, FakePool]]:
    """A service that has counted nothing yet."""
    with running() as server, httpx.Client(base_url=server.urls["standard"], timeout=10) as client:
        yield client, server.pool


def value(http: httpx.Client, name: str, **labels: str) -> float | None:
    page = http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=")
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def test_requests_by_port_endpoint_and_status(fresh: tuple[httpx.Client, FakePool]) -> None:
    http, _ = fresh
    http.post("/v1/completions", json=BODY)
    http.post("/v1/completions", json=BODY | {"model": "no such model"})
    for path in ("/v1/models/fake", "/v1/models/org/other", "/nowhere/1", "/nowhere/2"):
        http.get(path)
    for endpoint, status, count in (
        ("/v1/completions", "200", 1),
        ("/v1/completions", "404", 1),
        ("/v1/models/{name:path}", "200", 2),
        ("other", "404", 2),
    ):
        assert value(http, "axion_requests_total", port="standard", endpoint=endpoint, status=status) == count


def test_a_name_that_a_client_made_up_becomes_no_label(fresh: tuple[httpx.Client, FakePool]) -> None:
    http, _ = fresh
    http.post("/v1/completions", json=BODY | {"model": "made-up"})
    http.get("/made-up")
    assert "made-up" not in http.get("/metrics").text


def test_tokens_times_and_ends_of_completions(fresh: tuple[httpx.Client, FakePool]) -> None:
    http, pool = fresh
    pool.script = Script(["a", "b", "c"], cached=2, delay=0.03)
    assert http.post("/v1/completions", json=BODY).status_code == 200
    for kind, count in (("in", 3), ("cached", 2), ("out", 3)):
        assert value(http, "axion_request_tokens_total", model="fake", port="standard", kind=kind) == count
    assert value(http, "axion_completions_total", model="fake", port="standard", finish="stop") == 1
    for name, count in (("ttft", 1), ("token_gap", 2), ("request", 1)):
        assert value(http, f"axion_{name}_seconds_count", model="fake") == count
    gaps = value(http, "axion_token_gap_seconds_sum", model="fake")
    assert gaps is not None and 0.06 <= gaps < 1


def test_an_error_in_mid_stream_is_counted_as_such(fresh: tuple[httpx.Client, FakePool]) -> None:
    http, pool = fresh
    pool.script = Script(["a"], has_end=False)
    http.post("/v1/completions", json=BODY | {"stream": True})
    finish = "error:service_error"
    eventually(lambda: value(http, "axion_completions_total", model="fake", port="standard", finish=finish) == 1)


def test_engine_counters_outlive_the_process_they_were_counted_in(fresh: tuple[httpx.Client, FakePool]) -> None:
    http, pool = fresh
    for ended, now, total in (
        (0, 10, 10),
        (0, 0, 10),  # it is leaving: in neither sum
        (12, 0, 12),  # it has left, with two more steps than were seen
        (12, 5, 17),  # the next process
    ):
        pool.history["fake"] = Account(ended=EngineStats(num_steps=ended))
        pool.stats = EngineStats(num_steps=now)
        assert value(http, "axion_engine_steps_total", model="fake") == total


def test_loads_unloads_and_crashes(fresh: tuple[httpx.Client, FakePool]) -> None:
    http, pool = fresh
    pool.history["fake"] = Account(
        num_loads=3,
        num_failed_loads=1,
        load_seconds=4.5,
        num_crashes=2,
        num_restarts=1,
        num_unloads={"evicted": 4, "idle": 5},
    )
    for name, labels, count in (
        ("loads_total", {"result": "loaded"}, 3),
        ("loads_total", {"result": "failed"}, 1),
        ("load_seconds_total", {}, 4.5),
        ("crashes_total", {}, 2),
        ("restarts_total", {}, 1),
        ("unloads_total", {"reason": "evicted"}, 4),
        ("unloads_total", {"reason": "idle"}, 5),
    ):
        assert value(http, f"axion_model_{name}", model="fake", **labels) == count


def test_states_and_memory(http: httpx.Client) -> None:
    assert value(http, "axion_model_state", model="fake", state="ready") == 1
    assert value(http, "axion_model_state", model="fake", state="loading") == 0
    assert value(http, "axion_process_memory_bytes", process="model:fake", kind="uss") == 400 << 20
    assert value(http, "axion_process_memory_bytes", process="server", kind="pss") == 80 << 20
    assert value(http, "axion_model_memory_bytes", model="fake", part="kv") == 170 << 20


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.per_second(100.0) == 0
    for second in range(100, 110):
        rate.add(20, second + 0.5)
    assert rate.per_second(110.0) == pytest.approx(20, rel=0.05)
    assert rate.per_second(110.0 + RATE_SECONDS + 1) == 0
    rate.add(7, 200.2)
    assert rate.per_second(200.4) == 7  # for the first second as if it were a whole one
