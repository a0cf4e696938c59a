"""Fetch, patch and build the native libraries; does nothing when they are already what the tree asks for.

    python vendor/build.py                      libraries for this machine, into axion_llm/lib
    python vendor/build.py --flavour portable   every CPU generation, chosen at load (for a wheel to hand on)
    python vendor/build.py --flavour aarch64    cross build for Arm Neoverse V2
    python vendor/build.py --flavour aarch64-portable   cross build for every Arm generation
    python vendor/build.py --stock              upstream's libraries and tools, the peer of the benchmarks

A flavour other than native goes into .build/FLAVOUR/lib; AXION_FLAVOUR names the one to take without --flavour.

Everything in between lives in .build/, which may be deleted at any time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".build"
LOCK = ROOT / "vendor" / "llama.lock"
PATCHES = ROOT / "patches"
KERNELS = PATCHES / "ggml-axion"
LIBRARIES = ROOT / "axion_llm" / "lib"
STAMP = "build.json"
FLAVOURS = ["native", "portable", "aarch64", "aarch64-portable"]
STOCK_TOOLS = ["llama-server", "llama-bench", "llama-perplexity", "test-backend-ops"]


class BuildError(Exception):
    """Something the caller has to repair; the message says what."""


@dataclass(frozen=True)
class Plan:
    """One build: where it works, where the result goes, what it is made from."""

    flavour: str
    stock: bool
    jobs: int
    verbose: bool = False

    @property
    def name(self) -> str:
        return "stock" if self.stock else self.flavour

    @property
    def build_dir(self) -> Path:
        return WORK / self.name

    @property
    def library_dir(self) -> Path:
        return LIBRARIES if self.name == "native" else self.build_dir / "lib"

    @property
    def is_cross(self) -> bool:
        return self.flavour.startswith("aarch64")

    @property
    def is_portable(self) -> bool:
        return self.flavour.endswith("portable")

    def stamp(self) -> dict[str, str]:
        """All that decides what the libraries are; equal stamps need no build."""
        return {
            # A cross build's libraries are current on the machine that they were built for, as its portable ones.
            "flavour": "portable" if self.is_portable and not self.stock else self.name,
            "machine": "aarch64" if self.is_cross else platform.machine(),
            "cpu": cpu_features() if self.flavour == "native" else "",
            "build_id": build_id(),
            "build": digest([ROOT / "vendor" / "CMakeLists.txt", *([] if self.stock else sorted(KERNELS.glob("*")))]),
            "compiler": os.environ.get("CXX", "") + os.environ.get("CXXFLAGS", ""),
        }


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


def cpu_features() -> str:
    """A native build is for one kind of CPU: a home directory carried to another machine must rebuild."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    lines = re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.M)
    return hashlib.sha256(lines[0].encode()).hexdigest()[:16] if lines else ""


def platform_tag() -> str:
    """The wheel tag of this machine; glibc is not checked, so it says linux, not manylinux."""
    return f"linux_{platform.machine()}"


def say(text: str) -> None:
    print(f"[native] {text}", file=sys.stderr, flush=True)


def run(command: list[str | Path], what: str, **kwargs: object) -> None:
    try:
        subprocess.run([str(c) for c in command], check=True, **kwargs)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise BuildError(f"{what}: the program {command[0]} is missing") from None
    except subprocess.CalledProcessError as e:
        raise BuildError(f"{what} failed (exit status {e.returncode}); the lines above say why") from None


# ---- sources


def fetch() -> Path:
    """The sdist, through pip, by its hash."""
    version, sha = locked()
    sdist = WORK / "download" / f"llama_cpp_python-{version}.tar.gz"
    if not sdist.exists():
        say(f"fetching llama-cpp-python {version} (75 MB)")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--no-binary", ":all:", "--require-hashes", "--dest", str(sdist.parent), "-r", str(LOCK)]
        run([*pip], "fetching the upstream sources")
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != sha:
        sdist.unlink()
        raise BuildError(f"{sdist.name} is not the locked file (sha256 differs); it was removed, run again")
    return sdist


def unpack(sdist: Path, target: Path) -> None:
    """llama.cpp out of the sdist. Never half there: unpacked beside, then renamed."""
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    say("unpacking")
    prefix = sdist.name.removesuffix(".tar.gz") + "/vendor/llama.cpp/"
    with tarfile.open(sdist) as tar:
        for member in tar:
            if member.name.startswith(prefix) and "/.git" not in member.name:
                member.name = member.name[len(prefix) :]
                if hasattr(tarfile, "data_filter"):
                    tar.extract(member, partial, filter="data")
                else:
                    tar.extract(member, partial)
    partial.rename(target)


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


def sources() -> Path:
    """The patched sources. A change of lock or patches unpacks anew, a change of our own sources does not."""
    target = WORK / "src" / f"{locked()[0]}-{digest([LOCK, *patch_files()])}"
    if target.exists():
        return target
    sdist = fetch()
    fresh = target.with_name(target.name + ".unpatched")
    shutil.rmtree(fresh, ignore_errors=True)
    unpack(sdist, fresh)
    apply_patches(fresh)
    fresh.rename(target)
    return target


# ---- build


def configure(plan: Plan, source: Path) -> None:
    args: list[str | Path] = ["cmake", "-S", ROOT / "vendor", "-B", plan.build_dir, "-G", "Ninja"]
    args += ["-DCMAKE_BUILD_TYPE=Release", f"-DLLAMA_SOURCE_DIR={source}", f"-DAXION_BUILD_ID={build_id()}"]
    args += [f"-DAXION_FLAVOUR={'portable' if plan.is_portable else plan.flavour}"]
    args += [f"-DGGML_AXION_DIR={'' if plan.stock else KERNELS}"]
    args += [f"-DAXION_TOOLS={'ON' if plan.stock else 'OFF'}"]
    if plan.is_cross:
        args += ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
        args += ["-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"]
    log = plan.build_dir / "configure.log"
    plan.build_dir.mkdir(parents=True, exist_ok=True)
    say(f"configuring ({plan.name})")
    with log.open("w") as out:
        command = [str(a) for a in args]
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=tool_path(), check=False)
    if done.returncode:
        sys.stderr.write(log.read_text()[-4000:])
        raise BuildError(f"cmake could not configure the build; all of its words are in {log.relative_to(ROOT)}")


def tool_path() -> dict[str, str]:
    """cmake and ninja come from pip: beside the interpreter that runs this."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def compile_libraries(plan: Plan) -> None:
    targets = ["llama", "mtmd", *(STOCK_TOOLS if plan.stock else [])]
    if plan.is_portable:
        targets.append("ggml")
    say(f"compiling with {plan.jobs} jobs; the first time takes minutes")
    status = {"NINJA_STATUS": "[native] [%f/%t %es] "}
    command = ["ninja", "-C", str(plan.build_dir), f"-j{plan.jobs}", *targets]
    run([*command], "compiling", env=tool_path() | status, stdout=sys.stderr)


def install(plan: Plan) -> None:
    """Copy the libraries with upstream's names, SONAMEs as links; the stamp goes last."""
    target = plan.library_dir
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    built = [p for p in (plan.build_dir / "bin").rglob("lib*.so*") if "llama-common" not in p.name or plan.stock]
    for path in sorted(built):
        shutil.copy2(path, target / path.name, follow_symlinks=False)
    (target / STAMP).write_text(json.dumps(plan.stamp(), indent=1) + "\n")
    say(f"libraries are in {target.relative_to(ROOT)}")


def is_current(plan: Plan) -> bool:
    try:
        return json.loads((plan.library_dir / STAMP).read_text()) == plan.stamp()
    except (OSError, ValueError):
        return False


def check_compiler(plan: Plan) -> None:
    if plan.is_cross:
        program, package = "aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"
    else:
        program, package = os.environ.get("CXX", "c++"), "g++"
    if not shutil.which(program):
        raise BuildError(f"no C++ compiler {program}: install it (Debian, Ubuntu: apt install {package}), run again")


def build(plan: Plan, force: bool = False) -> Path:
    """The directory with the libraries, built if need be."""
    if force or not is_current(plan):
        check_compiler(plan)
        configure(plan, sources())
        compile_libraries(plan)
        install(plan)
    return plan.library_dir


def chosen_flavour() -> str:
    flavour = os.environ.get("AXION_FLAVOUR") or "native"
    if flavour not in FLAVOURS:
        raise BuildError(f"AXION_FLAVOUR={flavour}: one of {', '.join(FLAVOURS)}")
    return flavour


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flavour", choices=FLAVOURS, help="what for; by default AXION_FLAVOUR, or native")
    parser.add_argument("--stock", action="store_true", help="upstream unpatched, with llama-server and other tools")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="compilers at once")
    parser.add_argument("--force", action="store_true", help="build even when nothing changed")
    args = parser.parse_args()
    try:
        flavour = args.flavour or ("native" if args.stock else chosen_flavour())
        build(Plan(flavour, args.stock, args.jobs), args.force)
    except BuildError as e:
        print(f"vendor/build.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
