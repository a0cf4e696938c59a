"""Only our own libraries, of one build and of the bindings' release, are let in; anything else is a clear error."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from axion_llm import native
from axion_llm.config import library_dir
from axion_llm.errors import NativeLibraryError

STOCK_GGML = """
void * ggml_backend_reg_by_name(const char * name) { (void) name; return (void *) 1; }
void ggml_backend_load_all_from_path(const char * path) { (void) path; }
void * ggml_backend_reg_get_proc_address(void * reg, const char * name) { (void) reg; (void) name; return 0; }
"""


def load_elsewhere(directory: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a library once loaded stays."""
    code = "import sys, pathlib; from axion_llm import native; print(native.load(pathlib.Path(sys.argv[1])).kernels())"
    return subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, env=environment)


def copy_libraries(target: Path, **stamp: str) -> None:
    shutil.copytree(library_dir(), target, symlinks=True)
    path = target / "build.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | stamp))


def compile_library(path: Path, source: str) -> None:
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)], input=source, text=True, check=True)


def test_our_libraries_load_and_name_their_kernels() -> None:
    library = native.load()
    assert "rms_norm" in [k.name for k in library.kernels()]
    assert library.build_id == native.read_stamp(library_dir())["build_id"]


def test_kernels_are_switched_by_name_at_run_time() -> None:
    library = native.load()
    before = {k.name for k in library.kernels() if k.enabled}
    library.enable({"rms_norm"})
    assert [k.name for k in library.kernels() if k.enabled] == ["rms_norm"]
    library.enable(before)


@pytest.mark.parametrize(("value", "on"), [("off", False), ("all", True), ("rms_norm", True)])
def test_the_environment_switches_kernels(value: str, on: bool) -> None:
    done = load_elsewhere(library_dir(), {"AXION_KERNELS": value})
    assert f"Kernel(name='rms_norm', enabled={on}" in done.stdout, done.stderr


def test_an_unknown_kernel_name_is_reported() -> None:
    done = load_elsewhere(library_dir(), {"AXION_KERNELS": "rms_nrom"})
    assert "names no kernel of ours: 'rms_nrom'" in done.stderr


def test_no_libraries(tmp_path: Path) -> None:
    with pytest.raises(NativeLibraryError, match="scripts/build"):
        native.load(tmp_path)


def test_a_damaged_stamp(tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text("{")
    with pytest.raises(NativeLibraryError, match="damaged"):
        native.load(tmp_path)


def test_libraries_of_another_build_than_their_stamp(tmp_path: Path) -> None:
    copy_libraries(tmp_path / "lib", build_id="0.3.36-0000000000000000")
    assert "libraries of two builds are mixed" in load_elsewhere(tmp_path / "lib").stderr


def test_unpatched_upstream_libraries(tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text("{}")
    compile_library(tmp_path / "libggml.so", STOCK_GGML)
    assert "stock llama.cpp, without our kernels" in load_elsewhere(tmp_path).stderr


def test_bindings_of_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "version", lambda _: "0.3.35")
    with pytest.raises(NativeLibraryError, match=r"llama-cpp-python 0\.3\.35 is installed"):
        native.load()
