"""The registry read anew under running models."""

from __future__ import annotations

import pytest

from axion_llm.errors import ModelNotFound
from axion_llm.pool import caretaker
from tests.fakes.processes import until
from tests.pool.machinery import MachineMaker

pytestmark = pytest.mark.usefixtures("socket_root")


async def test_a_changed_model_is_disturbed_only_by_its_next_load(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    stream = m.asking("a", "tokens=30 delay=0.01")
    await until(lambda: m.state("a") == "ready")
    m.new_contexts = {"a": 1024}
    await m.pool.reload()
    assert m.status("a").spec.n_ctx == 8192
    assert len(await stream) == 32 and len(m.workers) == 1
    await m.pool.unload("a")
    assert m.status("a").spec.n_ctx == 1024
    await m.ask("a")
    info = m.status("a").info
    assert info is not None and info.n_ctx == 1024


async def test_a_removed_model_finishes_then_vanishes(machine: MachineMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caretaker, "REGISTRY_CHECK_SECONDS", 0.05)
    m = machine({"a": "ok", "b": "ok"})
    await m.pool.start()
    stream = m.asking("a", "tokens=30 delay=0.02")
    await until(lambda: m.state("a") == "ready")
    m.new_files = {"b": "ok"}
    await until(lambda: "a" not in [status.spec.name for status in m.pool.models()])
    with pytest.raises(ModelNotFound):
        await m.ask("a")
    assert not stream.done() and list(m.pool.running()) == ["a"]
    assert len(await stream) == 32
    await until(lambda: not m.pool.running())
    assert m.pool.accounts()["a"].num_unloads == {"removed": 1}


async def test_a_model_that_comes_back_before_it_went_stays(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"})
    stream = m.asking("a", "tokens=20 delay=0.01")
    await until(lambda: m.state("a") == "ready")
    for files in ({"b": "ok"}, {"a": "ok", "b": "ok"}):
        m.new_files = dict(files)
        await m.pool.reload()
    assert len(await stream) == 22
    await m.ask("a")
    assert len(m.workers) == 1


async def test_an_added_model_can_be_used_at_once(machine: MachineMaker) -> None:
    m = machine({"a": "ok"})
    m.new_files, m.need["b"] = {"a": "ok", "b": "ok"}, 0
    await m.pool.reload()
    assert len(await m.ask("b")) == 4
