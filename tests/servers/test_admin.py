"""The admin end-points: the status document and orders to the pool."""

from __future__ import annotations

import httpx
import pytest

from axion_llm.api import status as doc
from axion_llm.pool.report import Account
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer
from tests.servers.test_errors import error_of
from tests.servers.test_guard import SECRETS, running, write_keys

BODY = {"model": "fake", "prompt": "Hi there you", "stream": False}
MIB = 1 << 20


def status(http: httpx.Client, query: str = "") -> doc.Status:
    response = http.get(f"/admin/status{query}")
    assert response.status_code == 200
    return doc.decode_status(response.content)


def test_the_status_is_a_document_of_one_type(http: httpx.Client, pool: FakePool) -> None:
    pool.history["fake"] = Account(num_loads=2, load_seconds=3.0, last_load_seconds=1.0, num_crashes=1)
    found = status(http)
    assert (found.state, found.num_requests, found.max_loaded) == ("ready", 0, 5)
    assert [(m.name, m.state) for m in found.models] == [("fake", "ready"), ("org/other", "available")]
    assert (found.models[0].num_loads, found.models[0].last_load_seconds, found.models[0].num_crashes) == (2, 1.0, 1)


def test_the_parts_of_a_models_memory_add_up_to_its_rss(http: httpx.Client) -> None:
    found = status(http)
    memory = found.models[0].memory
    assert memory is not None and found.totals is not None and found.machine is not None
    parts = memory.weights_bytes, memory.kv_bytes, memory.compute_bytes, memory.other_bytes
    assert parts == (100 * MIB, 170 * MIB, 180 * MIB, 50 * MIB) and sum(parts) == memory.process.rss_bytes
    assert found.totals.pss_bytes == (450 + 80 + 50) * MIB
    assert found.totals.kv_saved_bytes == (320 - 170) * MIB
    assert found.machine.cgroup_limit_bytes == 7 << 30


def test_memory_is_left_out_on_request(http: httpx.Client) -> None:
    found = status(http, "?memory=0")
    assert found.totals is None and found.machine is None and found.models[0].memory is None


def test_the_status_shows_tokens_per_second(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(["a", "b", "c", "d"])
    assert http.post("/v1/completions", json=BODY).status_code == 200
    rate = status(http).models[0].tokens_per_second
    assert rate is not None and rate > 0


def test_the_state_before_the_warm_models_are_there(http: httpx.Client, pool: FakePool) -> None:
    pool.is_warm = False
    assert status(http).state == "starting"


@pytest.mark.parametrize("name", ["fake", "org/other"])
@pytest.mark.parametrize(
    ("order", "expected"),
    [("load", ("load",)), ("unload", ("unload", False)), ("pin", ("pin", True)), ("unpin", ("pin", False))],
)
def test_orders_reach_the_pool(
    http: httpx.Client, pool: FakePool, name: str, order: str, expected: tuple[object, ...]
) -> None:
    response = http.post(f"/admin/models/{name}/{order}", json={})
    assert response.status_code == 200
    assert doc.decode_order(response.content).is_pinned == (order == "pin")
    assert pool.orders == [(expected[0], name, *expected[1:])]


def test_an_unload_in_use_is_a_409_unless_forced(http: httpx.Client, pool: FakePool) -> None:
    pool.num_running = 1
    try:
        refused = http.post("/admin/models/fake/unload", json={})
        forced = http.post("/admin/models/fake/unload", json={"force": True})
    finally:
        pool.num_running = 0
    assert error_of(refused, 409)["code"] == "model_in_use"
    assert forced.status_code == 200


def test_an_order_for_an_unknown_model_is_a_404(http: httpx.Client, pool: FakePool) -> None:
    response = http.post("/admin/models/nothing/pin", json={})
    assert error_of(response, 404)["code"] == "model_not_found"
    assert pool.orders == []


@pytest.mark.parametrize(
    ("body", "status_code"), [({"json": {"forse": True}}, 400), ({"json": {"force": "yes"}}, 400), ({}, 415)]
)
def test_an_order_that_makes_no_sense(
    http: httpx.Client, pool: FakePool, body: dict[str, object], status_code: int
) -> None:
    assert http.post("/admin/models/fake/unload", **body).status_code == status_code  # type: ignore[arg-type]
    assert pool.orders == []


def test_with_keys_only_an_admin_may(tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = write_keys(tmp_path_factory.mktemp("keys") / "keys.toml")
    with running(keys_file=keys) as server, httpx.Client(base_url=server.urls["standard"]) as client:
        for scope, expected in ((None, 401), ("use", 403), ("metrics", 403), ("admin", 200)):
            headers = {"authorization": f"Bearer {SECRETS[scope]}"} if scope else {}  # type: ignore[index]
            assert client.get("/admin/status", headers=headers).status_code == expected
            assert client.post("/admin/models/fake/pin", json={}, headers=headers).status_code == expected
        assert server.pool.orders == [("pin", "fake", True)]


def test_both_ports_have_it(server: LiveServer) -> None:
    for url in server.urls.values():
        assert httpx.get(f"{url}/admin/status").status_code == 200
