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


AVX2 = "-O1 -mavx2 -mfma -mf16c -fno-sanitize=null,alignment,object-size,pointer-overflow,bounds"
TABLE_OF_TILES = ["mul_mat_formats.cpp"]
NARROWER = [
    ("test_flash_attn", [], AVX2),
    ("test_flash_attn_tile", [], AVX2),
    ("test_mul_mat", TABLE_OF_TILES, AVX2),
    ("test_mul_mat", TABLE_OF_TILES, f"{AVX2} -mavx512vl -mavx512vnni"),  # dots as AVX-VNNI has them
]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is x86's")
@pytest.mark.parametrize(("name", "bodies", "flags"), NARROWER)
def test_the_tiles_of_a_machine_without_avx512(tmp_path: Path, name: str, bodies: list[str], flags: str) -> None:
    """Which a machine with AVX-512 would never choose."""
    if "vnni" in flags and "avx512_vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this machine could not run it")
    program = tmp_path / name
    ggml = build.sources() / "ggml"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-Wno-psabi", f"-I{build.KERNELS}"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", *flags.split()]
    command += [f"-I{ggml / folder}" for folder in ("include", "src", "src/ggml-cpu")]
    sources = [HERE / f"{name}.cpp", *(build.KERNELS / body for body in bodies)]
    subprocess.run([*command, *sources, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
