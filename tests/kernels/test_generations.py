"""Our kernels compile for each CPU generation of a portable build, as strictly as they are built there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "vendor"))
import build  # noqa: E402

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-psabi"]
WARNINGS += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]  # GCC's own AVX-512 intrinsics
AVX2 = "-msse4.2 -mavx -mf16c -mfma -mavx2 -mbmi2"
AVX512 = f"{AVX2} -mavx512f -mavx512cd -mavx512vl -mavx512dq -mavx512bw"
X86 = {
    "x64": "",
    "sse42": "-msse4.2",
    "sandybridge": "-msse4.2 -mavx",
    "ivybridge": "-msse4.2 -mavx -mf16c",
    "piledriver": "-msse4.2 -mavx -mf16c -mfma",
    "haswell": AVX2,
    "alderlake": f"{AVX2} -mavxvnni",
    "skylakex": AVX512,
    "cascadelake": f"{AVX512} -mavx512vnni",
    "zen4": f"{AVX512} -mavx512vbmi -mavx512vnni -mavx512bf16",
    "sapphirerapids": f"{AVX512} -mavx512vbmi -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8",
}
ARM = {
    "armv8.0_1": "-march=armv8-a",
    "armv8.2_1": "-march=armv8.2-a+dotprod",
    "armv8.2_2": "-march=armv8.2-a+dotprod+fp16",
    "armv8.2_3": "-march=armv8.2-a+dotprod+fp16+sve",
    "armv8.6_1": "-march=armv8.6-a+dotprod+fp16+sve+i8mm",
    "armv8.6_2": "-march=armv8.6-a+dotprod+fp16+sve+i8mm+sve2",
}
NATIVE = os.environ.get("CXX", "c++")
CROSS = "aarch64-linux-gnu-g++"
OLDEST = pytest.param(NATIVE, X86["sse42"], id="sse42")  # of those whose code no other test compiles
OTHERS = [
    pytest.param(compiler, flags, id=name, marks=pytest.mark.long)
    for compiler, generations in ((NATIVE, X86), (CROSS, ARM))
    for name, flags in generations.items()
]
ELEMENTWISE = ["vecmath", "rms_norm", "soft_max", "rope", "glu", "hadamard"]


def compile_with(compiler: str, flags: str, *words: str | Path) -> str:
    """What the compiler says against it."""
    ggml = build.sources() / "ggml"
    includes = [f"-isystem{ggml / folder}" for folder in ("include", "src", "src/ggml-cpu")]
    command = [compiler, "-std=gnu++17", "-O1", *WARNINGS, f"-I{build.KERNELS}", *includes, *flags.split(), *words]
    return subprocess.run([str(w) for w in command], capture_output=True, text=True, check=False).stderr


def need(compiler: str) -> None:
    if not shutil.which(compiler) or (compiler == NATIVE and platform.machine() != "x86_64"):
        pytest.skip(f"no {compiler} for it here")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("compiler", "flags"), [OLDEST, *OTHERS])
def test_every_kernel_compiles(compiler: str, flags: str) -> None:
    need(compiler)
    definitions = ["-DGGML_USE_AXION", '-DAXION_BUILD_ID="test"', "-fsyntax-only"]
    for path in sorted(build.KERNELS.glob("*.cpp")):
        assert compile_with(compiler, flags, *definitions, path) == "", path.name


@pytest.mark.long
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_without_avx2_the_elementwise_kernels_are_right(name: str, tmp_path: Path) -> None:
    """Vectors of four floats, no fused multiply-add, halves converted by hand."""
    need(NATIVE)
    program = tmp_path / name
    assert compile_with(NATIVE, X86["sse42"], HERE / f"test_{name}.cpp", "-pthread", "-o", program) == ""
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
