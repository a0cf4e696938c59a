"""A running service as its operator sees it: status, orders, memory, and a registry that changes under it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner

from axion_llm.api import status as doc
from axion_llm.cli.main import cli
from tests.e2e.conftest import MODEL, ServeProcess, eventually
from tests.factory import write_tiny_gguf

ENTRY = '[models.{name}]\npath = "tiny.gguf"\ncontext = {context}\nparallel = 4\n'


class Operated(ServeProcess):
    def __init__(self, home: Path) -> None:
        self.registry = home / "models.toml"
        self.write(tiny=1024)
        # One port: the consensus port reads its language model in the background, which would blur the memory figures.
        options = ("--only", "standard", "--warm", "0", "--max-loaded", "2")
        super().__init__(home, "--models", str(self.registry), *options)

    def write(self, **contexts: int) -> None:
        self.registry.write_text("".join(ENTRY.format(name=n, context=c) for n, c in contexts.items()))

    def run(self, *arguments: str) -> str:
        options = ["--url", self.urls["standard"]]
        done = CliRunner().invoke(cli, [*arguments, *options], catch_exceptions=False, standalone_mode=False)
        return str(done.output)

    def status(self) -> doc.Status:
        return doc.decode_status(self.run("ps", "--json"))

    def model(self, name: str) -> doc.ModelReport:
        return next(m for m in self.status().models if m.name == name)

    def names(self) -> list[str]:
        return [m["id"] for m in httpx.get(f"{self.urls['standard']}/v1/models").json()["data"]]


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    home = tmp_path_factory.mktemp("operated")
    write_tiny_gguf(home / "tiny.gguf", "llama")
    started = Operated(home)
    try:
        started.wait_until_ready()
        yield started
        started.stop()
    finally:
        started.kill()


def test_load_and_unload_give_and_free_a_process(operated: Operated) -> None:
    before = psutil.Process(operated.process.pid).memory_full_info().uss
    assert operated.run("load", MODEL).strip() == f"{MODEL}: loaded"
    loaded = operated.model(MODEL)
    assert loaded.pid is not None and psutil.pid_exists(loaded.pid) and loaded.num_threads >= 1
    assert loaded.kv_total_tokens == loaded.context_tokens == 32768 and loaded.is_answering
    assert operated.run("unload", MODEL).strip() == f"{MODEL}: not loaded"
    assert not psutil.pid_exists(loaded.pid)
    assert psutil.Process(operated.process.pid).memory_full_info().uss < before + (8 << 20)


def test_the_memory_report_agrees_with_the_operating_system(operated: Operated) -> None:
    operated.run("load", MODEL)
    status = operated.status()
    memory = next(m.memory for m in status.models if m.name == MODEL)
    assert memory is not None and status.totals is not None
    info = psutil.Process(memory.process.pid).memory_full_info()
    assert memory.process.uss_bytes == pytest.approx(info.uss, rel=0.02)
    assert memory.process.pss_bytes == pytest.approx(info.pss, rel=0.02)
    parts = (memory.weights_bytes, memory.kv_bytes, memory.compute_bytes, memory.other_bytes)
    assert all(parts) and sum(parts) == memory.process.rss_bytes
    assert memory.kv_16bit_bytes == pytest.approx(memory.kv_bytes * 32 / 17, rel=0.001)
    assert MODEL in operated.run("memory") and "saved (47%)" in operated.run("memory")


def test_a_pinned_model_stays_when_others_need_its_place(operated: Operated) -> None:
    operated.write(tiny=1024, tiny2=1024)
    eventually(lambda: "tiny2" in operated.names())
    operated.run("load", MODEL)
    operated.run("pin", MODEL)
    for name in ("tiny", "tiny2", "tiny"):
        operated.run("load", name)
    assert operated.model(MODEL).state == "ready" and operated.model("tiny2").state == "available"
    assert operated.run("unpin", MODEL).strip() == f"{MODEL}: loaded"


def test_the_registry_is_followed_and_a_mistake_is_reported(operated: Operated) -> None:
    operated.write(tiny=1024)
    eventually(lambda: "tiny2" not in operated.names())
    operated.registry.write_text('[models.tiny]\npath = "tiny.gguf"\ncontxt = 5\n')
    operated.process.send_signal(signal.SIGHUP)
    health = f"{operated.urls['standard']}/health"
    eventually(lambda: "contxt" in (httpx.get(health).json()["registry_error"] or ""), 1.5)
    assert "tiny" in operated.names() and "models.toml:3:" in operated.log
    assert "contxt" in operated.run("ps")
    operated.write(tiny=2048)
    operated.process.send_signal(signal.SIGHUP)
    eventually(lambda: httpx.get(health).json()["registry_error"] is None, 1.5)
    operated.run("unload", "tiny")
    operated.run("load", "tiny")
    assert operated.model("tiny").kv_total_tokens == 2048


def test_what_was_counted_before_an_unload_is_still_there(operated: Operated) -> None:
    url = operated.urls["standard"]
    ask = {"model": MODEL, "prompt": "one two three", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    assert httpx.post(f"{url}/v1/completions", json=ask, timeout=60).status_code == 200

    def steps() -> float:
        page = httpx.get(f"{url}/metrics").text
        return float(page.split(f'axion_engine_steps_total{{model="{MODEL}"}} ')[1].split("\n")[0])

    operated.run("unload", MODEL)  # nobody has looked at /metrics since the request
    before = steps()
    assert before >= 8
    operated.run("load", MODEL)
    httpx.post(f"{url}/v1/completions", json=ask, timeout=60)
    assert steps() >= before + 8
