"""The self-test finds every kernel of the library right, is quick, and sees one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axion_llm import native
from axion_llm.kernels.self_test import Finding, self_test
from tests import library_variant


def findings(is_short: bool) -> list[Finding]:
    return [found for found in self_test(is_short) if isinstance(found, Finding)]


@pytest.mark.parametrize("is_short", [True, False])
def test_every_kernel_that_is_on_is_tested_and_right(is_short: bool) -> None:
    before = {k.name for k in native.load().kernels() if k.enabled}
    found = findings(is_short)
    assert {f.kernel for f in found} == before
    assert [f for f in found if not f.is_right] == []
    assert {k.name for k in native.load().kernels() if k.enabled} == before


def test_the_short_form_is_short() -> None:
    """Not a measurement: ten times what it takes (docs/operations.md)."""
    findings(True)
    started = time.perf_counter()
    findings(True)
    assert time.perf_counter() - started < 3


def test_a_kernel_that_is_off_is_left_alone() -> None:
    library = native.load()
    names = {k.name for k in library.kernels() if k.enabled}
    library.enable(names - {"rope"})
    try:
        assert "rope" not in {f.kernel for f in findings(True)}
    finally:
        library.enable(names)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library_variant.broken(tmp_path_factory.mktemp("broken"))


KERNELS = ["flash_attn", "glu", "hadamard", "mul_mat", "mul_mat_float", "mul_mat_id", "rms_norm", "rope", "soft_max"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_wrong_number_is_seen(libraries: Path, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXION_LIB_DIR", str(libraries))
    monkeypatch.setenv("AXION_BREAK", f"wrong:{kernel}")
    command = [sys.executable, "-m", "axion_llm.kernels.self_test", "--short"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["kernel"] for line in lines if line.get("error", 0) > 1} == {kernel}


def test_doctor_names_it_and_fails(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXION_LIB_DIR", str(libraries))
    monkeypatch.setenv("AXION_BREAK", "kill:soft_max")
    code = "from axion_llm.cli.main import main; main()"
    command = [sys.executable, "-c", code, "doctor", "--kernels", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    kernels = json.loads(done.stdout)["facts"]["kernels"]
    assert kernels["soft_max"]["state"] == "crashed"
    assert {name for name, line in kernels.items() if line["state"] == "crashed"} == {"soft_max"}
    assert kernels["rope"]["state"] == "right" and kernels["rope"]["error"] <= 1
