"""What happens to a model's process must not happen to its clients: kills, hangs, files cut short, memory."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.conftest import ServeProcess, eventually
from tests.models_on_disk import smollm2_path

ENTRY = '[models.{name}]\npath = "{name}.gguf"\ncontext = 2048\nparallel = 4\n'
NUM_TOKENS = 120


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """Two copies of the embedded model under names of their own; hung processes are replaced after 6 s."""
    home = tmp_path_factory.mktemp("survival")
    for name in ("a", "b"):
        shutil.copy(smollm2_path(), home / f"{name}.gguf")
    models = home / "models.toml"
    models.write_text(ENTRY.format(name="a") + ENTRY.format(name="b"))
    started = ServeProcess(home, "--models", str(models), "--warm", "0", hang_seconds="6")
    try:
        yield started.wait_until_ready()
        started.stop()
    finally:
        started.kill()


class Stream(threading.Thread):
    """One client, through the SDK, with no second try of its own."""

    def __init__(self, service: ServeProcess, model: str, temperature: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._url = f"{service.urls['streaming']}/v1"
        self._model, self._temperature = model, temperature
        self.pieces: list[str] = []
        self.finish: str | None = None
        self.num_tokens = 0
        self.start()

    def run(self) -> None:
        with openai.OpenAI(base_url=self._url, api_key="none", max_retries=0, timeout=60) as sdk:
            chunks = sdk.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": "Tell me a story about a lighthouse."}],
                max_tokens=NUM_TOKENS,
                temperature=self._temperature,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            for chunk in chunks:
                self.num_tokens = chunk.usage.completion_tokens if chunk.usage else 0
                for choice in chunk.choices:
                    self.pieces.append(choice.delta.content or "")
                    self.finish = choice.finish_reason

    def text(self) -> str:
        self.join(60)
        assert (self.finish, self.num_tokens) == ("length", NUM_TOKENS), self.pieces
        return "".join(self.pieces)

    def has_begun(self) -> bool:
        return len(self.pieces) > 5


@pytest.fixture(scope="module")
def quiet(service: ServeProcess) -> str:
    text = Stream(service, "a").text()
    assert Stream(service, "b").text() == text
    return text


def test_streams_of_a_killed_process_go_on_to_their_end(service: ServeProcess, quiet: str) -> None:
    streams = [Stream(service, "a"), Stream(service, "a"), Stream(service, "b"), Stream(service, "a", 1.0)]
    eventually(lambda: all(stream.has_begun() for stream in streams))
    os.kill(service.pid_of("a"), signal.SIGKILL)
    assert [stream.text() for stream in streams[:3]] == [quiet] * 3
    assert streams[3].text()  # a sampled text goes on as well


def test_a_process_that_hangs_is_told_of_and_replaced(service: ServeProcess, quiet: str) -> None:
    stream = Stream(service, "a")
    eventually(stream.has_begun)
    os.kill(service.pid_of("a"), signal.SIGSTOP)
    health = f"{service.urls['standard']}/health"
    eventually(lambda: httpx.get(health).status_code == 503)
    assert httpx.get(health).json()["hanging"] == ["a"]
    assert Stream(service, "b").text() == quiet
    assert stream.text() == quiet
    assert httpx.get(health).status_code == 200


def test_a_file_that_is_cut_short_while_in_use(service: ServeProcess, quiet: str, tmp_path: Path) -> None:
    model = next(Path(m.path) for m in psutil.Process(service.pid_of("b")).memory_maps() if m.path.endswith("b.gguf"))
    kept = tmp_path / "kept.gguf"
    shutil.copy(model, kept)
    os.truncate(model, 1 << 20)
    url = f"{service.urls['standard']}/v1"
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as sdk,
        pytest.raises(openai.InternalServerError, match="truncated"),
    ):
        sdk.chat.completions.create(model="b", messages=[{"role": "user", "content": "Hello"}], max_tokens=5)
    assert Stream(service, "a").text() == quiet
    kept.replace(model)
    assert Stream(service, "b").text() == quiet


def uss_bytes(service: ServeProcess) -> int:
    processes = [psutil.Process(service.process.pid), *service.children()]
    return sum(process.memory_full_info().uss for process in processes)


def test_memory_is_back_after_an_unload(service: ServeProcess, quiet: str) -> None:
    def num_processes() -> int:
        return len(service.children())

    def cycle() -> tuple[int, int]:
        """USS of the whole service with the model and without it, its spare worker there."""
        assert Stream(service, "a").text() == quiet
        eventually(lambda: num_processes() == 2)
        loaded = uss_bytes(service)
        httpx.post(f"{service.urls['standard']}/admin/models/a/unload", json={}).raise_for_status()
        eventually(lambda: num_processes() == 1)
        return loaded, uss_bytes(service)

    httpx.post(f"{service.urls['standard']}/admin/models/b/unload", json={}).raise_for_status()
    _, before = cycle()
    for _ in range(2):
        loaded, after = cycle()
        assert loaded > 1.3 * after
        assert after < 1.05 * before
