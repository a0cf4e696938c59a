"""`axion-llm serve` as a person starts it: a process of its own, a real worker, the embedded model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.factory import write_tiny_gguf, write_tiny_projector

MODEL = "smollm2"
GEMMA = "gemma3"
READY_SECONDS = 60.0
COMMAND = [sys.executable, "-c", "from axion_llm.cli.main import main; main()", "serve"]
OPTIONS = ["--standard-port", "0", "--streaming-port", "0", "--consensus-port", "0"]


class ServeProcess:
    """With a home of its own, so that nobody's settings or models take part."""

    def __init__(self, home: Path, *options: str, **settings: str) -> None:
        self._log = home / "serve.log"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("AXION_") or k == "AXION_KERNELS"}
        environ |= {"XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data")}
        environ |= {f"AXION_{name.upper()}": value for name, value in settings.items()}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*COMMAND, *OPTIONS, *options], env=environ, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def urls(self) -> dict[str, str]:
        return dict(re.findall(r"^(standard|streaming|consensus) +(http://\S+)/v1$", self.log, re.M))

    def wait_until_ready(self) -> ServeProcess:
        eventually(lambda: self.process.poll() is not None or "ready  " in self.log, READY_SECONDS)
        assert self.process.poll() is None, self.log
        for url in self.urls.values():
            assert httpx.get(f"{url}/ready").status_code == 200
        return self

    def pid_of(self, model: str) -> int:
        """Of the process that has the model."""
        models = httpx.get(f"{self.urls['standard']}/admin/status").json()["models"]
        return next(int(m["pid"]) for m in models if m["name"] == model)

    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """It ends by itself, well, and takes its workers with it."""
        children = self.children() if self.process.poll() is None else []
        self.process.send_signal(signum)
        try:
            assert self.process.wait(30) == 0, self.log
            _, left = psutil.wait_procs(children, timeout=5)
            assert left == []
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            for child in self.children():
                child.kill()
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    started = ServeProcess(tmp_path_factory.mktemp("home"))
    try:
        yield started.wait_until_ready()
        started.stop()
    finally:
        started.kill()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[ServeProcess]:
    """For tests that stop it or break it."""
    started = ServeProcess(tmp_path)
    try:
        yield started.wait_until_ready()
    finally:
        started.kill()


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """With a tiny gemma3 of random weights and its projector: what it says makes no sense, but depends on the image."""
    home = tmp_path_factory.mktemp("seeing")
    write_tiny_gguf(home / "gemma3.gguf", "gemma3")
    write_tiny_projector(home / "mmproj.gguf", n_embd=64, image_size=224)
    models = home / "models.toml"
    models.write_text(f'[models.{GEMMA}]\npath = "gemma3.gguf"\nmmproj = "mmproj.gguf"\ncontext = 2048\nparallel = 4\n')
    service = ServeProcess(home, "--models", str(models), "--warm", "2")
    try:
        yield service.wait_until_ready()
        service.stop()
    finally:
        service.kill()


@pytest.fixture(params=["standard", "streaming", "consensus"])
def url(service: ServeProcess, request: pytest.FixtureRequest) -> str:
    return service.urls[request.param]


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def eventually(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "has not happened"
        time.sleep(0.02)
