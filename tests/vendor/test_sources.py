"""Upstream's sources: what a changed patch leaves alone is not compiled anew."""

import io
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "vendor"))

import sources  # noqa: E402


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_only_what_differs_is_touched(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, {"same.c": "1", "src/changed.c": "2", "src/gone.c": "3"})
    write(new, {"same.c": "1", "src/changed.c": "two", "src/models/new.c": "4"})
    before = (old / "same.c").stat().st_mtime_ns
    sources.bring_up_to_date(old, new)
    assert {str(p.relative_to(old)): p.read_text() for p in old.rglob("*") if p.is_file()} == {
        "same.c": "1",
        "src/changed.c": "two",
        "src/models/new.c": "4",
    }
    assert (old / "same.c").stat().st_mtime_ns == before


def test_what_no_build_reads_is_not_unpacked(tmp_path: Path) -> None:
    sdist = tmp_path / "llama_cpp_python-1.tar.gz"
    names = ["src/llama.cpp", "docs/big.csv", "ggml/src/ggml-cpu/ops.cpp", "ggml/src/ggml-cuda/x.cu", ".github/w.yml"]
    names += ["ggml/src/ggml-cuda/CMakeLists.txt", "models/vocab.gguf", "tools/mtmd/mtmd.cpp"]
    with tarfile.open(sdist, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(f"llama_cpp_python-1/vendor/llama.cpp/{name}"), io.BytesIO())
    sources.unpack(sdist, tmp_path / "out")
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "src/llama.cpp",
        "ggml/src/ggml-cpu/ops.cpp",
        "ggml/src/ggml-cuda/CMakeLists.txt",
        "tools/mtmd/mtmd.cpp",
    }


def test_the_sources_are_marked_last(tmp_path: Path) -> None:
    assert sources.sources().joinpath(sources.MARK).read_text().startswith(sources.locked()[0])


def test_no_tile_is_configured_by_the_intrinsic_that_gcc_compiles_wrong() -> None:
    """GCC PR 114098: only 8 of the 64 bytes of a configuration are an input of it; every load faulted with AMX."""
    backend = sources.sources() / "ggml" / "src" / "ggml-cpu"
    files = [*backend.rglob("*.cpp"), *backend.rglob("*.h"), *sources.KERNELS.rglob("*.h")]
    assert len(files) > 50
    assert [path.name for path in files if "_tile_loadconfig(" in path.read_text()] == []
