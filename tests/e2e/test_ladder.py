"""A start that cannot be killed by a kernel: libraries that are bad on purpose, the real server, a right answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests import library_variant
from tests.e2e.conftest import MODEL, ServeProcess

pytestmark = pytest.mark.timeout(600)
QUESTION = {"model": MODEL, "max_tokens": 8, "temperature": 0}
QUESTION["messages"] = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
Broken = Callable[..., ServeProcess]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library_variant.broken(tmp_path_factory.mktemp("broken"))


@pytest.fixture
def broken(libraries: Path, tmp_path: Path) -> Iterator[Broken]:
    """Starts a server whose libraries are bad in the way that is asked for; again in the same home, if asked again."""
    started: list[ServeProcess] = []

    def start(how: str) -> ServeProcess:
        started.append(ServeProcess(tmp_path, lib_dir=str(libraries), **{"break": how}))
        return started[-1].wait_until_ready()

    yield start
    for service in started:
        service.kill()


def ask(service: ServeProcess) -> str:
    answer = httpx.post(f"{service.urls['standard']}/v1/chat/completions", json=QUESTION, timeout=120)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def kernels_of(service: ServeProcess) -> dict[str, object]:
    found: dict[str, object] = httpx.get(f"{service.urls['standard']}/health").json()["kernels"]
    return found


@pytest.mark.parametrize("kernel", ["mul_mat", "rms_norm"])
def test_a_kernel_that_ends_the_process_is_taken_out_and_remembered(broken: Broken, kernel: str) -> None:
    service = broken(f"kill:{kernel}")
    assert "Paris" in ask(service)
    assert kernels_of(service)["without"] == [kernel]
    assert kernels_of(service)["rung"] == "all"
    assert service.log.count(f"{kernel} ended the process (SIGILL)") == 1
    service.stop()
    again = broken(f"kill:{kernel}")
    assert "Paris" in ask(again)
    assert "the worker process ended" not in again.log
    status = httpx.get(f"{again.urls['standard']}/admin/status").json()
    assert status["kernels"] == f"our kernels without {kernel}: {kernel} ended the process (SIGILL)"


def test_a_kernel_that_computes_wrong_numbers_is_taken_out_before_the_first_model(broken: Broken) -> None:
    service = broken("wrong:rope")
    assert "Paris" in ask(service)
    assert kernels_of(service)["without"] == ["rope"]
    assert "the worker process ended" not in service.log


def test_where_upstreams_code_dies_too_the_plain_library_answers(broken: Broken) -> None:
    service = broken("kill:upstream")
    assert "Paris" in ask(service)
    assert kernels_of(service) | {"why": ""} == {"rung": "baseline", "without": [], "why": ""}


def test_the_file_is_for_one_build_and_one_cpu(broken: Broken, tmp_path: Path) -> None:
    service = broken("wrong:soft_max")
    assert kernels_of(service)["without"] == ["soft_max"]
    service.stop()
    path = tmp_path / "data" / "axion-llm" / "kernels.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"build": "another"}))
    assert kernels_of(broken("nothing"))["without"] == []
