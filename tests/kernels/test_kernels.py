"""Builds the C++ kernel tests against the patched sources, with sanitizers, and runs each program."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "vendor"))
import build  # noqa: E402

pytestmark = pytest.mark.timeout(1500)  # the first one waits for all programs to be compiled


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("kernels")
    configure = ["cmake", "-S", HERE, "-B", target, "-G", "Ninja", "-DAXION_SANITIZE=ON"]
    configure += [f"-DAXION_DIR={build.KERNELS}", f"-DLLAMA_SOURCE_DIR={build.sources()}"]
    subprocess.run([str(c) for c in configure], check=True)
    subprocess.run(["cmake", "--build", str(target)], check=True)
    return target


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("test_*.cpp")))
def test_kernel(build_dir: Path, name: str) -> None:
    done = subprocess.run([build_dir / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is x86's")
@pytest.mark.parametrize("name", ["test_flash_attn", "test_flash_attn_tile"])
def test_attention_with_avx2_alone(tmp_path: Path, name: str) -> None:
    """The tile that a machine with AVX-512 would never choose."""
    program = tmp_path / name
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O2", "-mavx2", "-mfma", "-mf16c", "-Wno-psabi"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{build.KERNELS}"]
    subprocess.run([*command, str(HERE / f"{name}.cpp"), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
