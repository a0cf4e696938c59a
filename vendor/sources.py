"""Upstream's sources, pinned by hash and patched: fetched once, unpacked, brought up to date file by file."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".build"
LOCK = ROOT / "vendor" / "llama.lock"
PATCHES = ROOT / "patches"
KERNELS = PATCHES / "ggml-axion"
MARK = ".axion-sources"  # in the unpacked sources: what they are; written last
# What no build of ours reads: three quarters of the archive.
LEFT_OUT = ("docs/", "models/", "benches/", "media/", "gguf-py/", ".github/", "examples/")
OTHER_DEVICES = re.compile(r"ggml/src/ggml-(?!cpu/|base)[a-z0-9_]+/")


class BuildError(Exception):
    """Something the caller has to repair; the message says what."""


def say(text: str) -> None:
    print(f"[native] {text}", file=sys.stderr, flush=True)


def run(command: list[str | Path], what: str, **kwargs: object) -> None:
    try:
        subprocess.run([str(c) for c in command], check=True, **kwargs)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise BuildError(f"{what}: the program {command[0]} is missing") from None
    except subprocess.CalledProcessError as e:
        raise BuildError(f"{what} failed (exit status {e.returncode}); the lines above say why") from None


def digest(paths: Iterable[Path]) -> str:
    h = hashlib.sha256()
    for path in paths:
        if path.is_file():
            h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()[:16]


def patch_files() -> list[Path]:
    return sorted(PATCHES.glob("*.patch"))


def locked() -> tuple[str, str]:
    """(version, sha256) of the upstream sdist."""
    text = LOCK.read_text()
    version = re.search(r"^llama-cpp-python==(\S+)", text, re.M)
    sha = re.search(r"--hash=sha256:([0-9a-f]{64})", text)
    if not version or not sha:
        raise BuildError(f"{LOCK.relative_to(ROOT)}: no llama-cpp-python==VERSION with --hash=sha256:… in it")
    return version[1], sha[1]


def build_id() -> str:
    """Names the sources and the hooks; the kernels' own files may change without breaking the interface."""
    return f"{locked()[0]}-{digest([LOCK, *patch_files(), KERNELS / 'axion.h'])}"


def sources() -> Path:
    """The patched sources. Files that a change of lock or patches leaves as they were keep their time stamps."""
    target = WORK / "src" / "llama.cpp"
    wanted = f"{locked()[0]}-{digest([LOCK, *patch_files()])}"
    if _mark_of(target) == wanted:
        return target
    sdist = fetch()
    fresh = target.with_name("llama.cpp.new")
    shutil.rmtree(fresh, ignore_errors=True)
    unpack(sdist, fresh)
    apply_patches(fresh)
    (target / MARK).unlink(missing_ok=True)
    bring_up_to_date(target, fresh)
    (target / MARK).write_text(wanted)
    shutil.rmtree(fresh)
    return target


def _mark_of(target: Path) -> str | None:
    try:
        return (target / MARK).read_text()
    except OSError:
        return None


def fetch() -> Path:
    """The sdist, through pip, by its hash."""
    version, sha = locked()
    sdist = WORK / "download" / f"llama_cpp_python-{version}.tar.gz"
    if not sdist.exists():
        say(f"fetching llama-cpp-python {version} (75 MB)")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--no-build-isolation", "--no-binary", "llama-cpp-python", "--require-hashes"]
        pip += ["--progress-bar", "on" if sys.stderr.isatty() else "off"]
        stand_in = {"PYTHONPATH": str(ROOT / "vendor" / "metadata_only"), "AXION_LOCKED_VERSION": version}
        run(
            [*pip, "--dest", str(sdist.parent), "-r", str(LOCK)],
            "fetching the upstream sources",
            env=os.environ | stand_in,
        )
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != sha:
        sdist.unlink()
        raise BuildError(f"{sdist.name} is not the locked file (sha256 differs); it was removed, run again")
    return sdist


def unpack(sdist: Path, target: Path) -> None:
    """llama.cpp out of the sdist, as far as it is needed. Never half there: unpacked beside, then renamed."""
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    say("unpacking")
    prefix = sdist.name.removesuffix(".tar.gz") + "/vendor/llama.cpp/"
    with tarfile.open(sdist) as tar:
        for member in tar:
            name = member.name.removeprefix(prefix)
            if name == member.name or not is_needed(name):
                continue
            member.name = name
            if hasattr(tarfile, "data_filter"):
                tar.extract(member, partial, filter="data")
            else:
                tar.extract(member, partial)
    partial.rename(target)


def is_needed(name: str) -> bool:
    """`name` in the tree of llama.cpp. CMake files stay, wherever they are: others include them."""
    if Path(name).name == "CMakeLists.txt" or name.endswith(".cmake"):
        return True
    return not name.startswith(LEFT_OUT) and "/.git" not in name and not OTHER_DEVICES.match(name)


def apply_patches(source: Path) -> None:
    import patch_ng

    for path in patch_files():
        patch = patch_ng.fromfile(str(path))
        if not patch or not patch.apply(strip=1, root=str(source), fuzz=False):
            raise BuildError(
                f"{path.relative_to(ROOT)} does not apply to llama-cpp-python {locked()[0]}; "
                "patches/README.md says how to remake it"
            )
        say(f"applied {path.name}")


def bring_up_to_date(target: Path, fresh: Path) -> None:
    """Make `target` what `fresh` is, touching only what differs, so that only that is compiled anew."""
    new = {path.relative_to(fresh) for path in fresh.rglob("*") if not path.is_dir()}
    for path in [p for p in target.rglob("*") if not p.is_dir()]:
        if path.relative_to(target) not in new:
            path.unlink()
    for name in new:
        old = target / name
        if not old.is_file() or not filecmp.cmp(fresh / name, old, shallow=False):
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / name, old)


if __name__ == "__main__":
    fetch()
