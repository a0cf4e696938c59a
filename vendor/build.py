"""Build the native libraries; does nothing when they are already what the tree asks for.

    python vendor/build.py                      libraries for this machine, into axion_llm/lib
    python vendor/build.py --vision on          with the one for images too; auto: if a model here needs it
    python vendor/build.py --flavour portable   every CPU generation, chosen at load (for a wheel to hand on)
    python vendor/build.py --flavour aarch64    cross build for Arm Neoverse V2
    python vendor/build.py --flavour aarch64-portable   cross build for every Arm generation
    python vendor/build.py --stock              upstream's libraries and tools, the peer of the benchmarks
    python vendor/build.py --clean              anew from the first file on

A flavour other than native goes into .build/FLAVOUR/lib; AXION_FLAVOUR names the one to take without --flavour.
The compiler and its flags come from CXX, CC, CXXFLAGS, CFLAGS and LDFLAGS. Everything in between lives in .build/,
which may be deleted at any time.
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
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from progress import run_ninja
from sources import KERNELS, ROOT, WORK, BuildError, build_id, digest, say, sources

LIBRARIES = ROOT / "axion_llm" / "lib"
STAMP = "build.json"
FLAVOURS = ["native", "portable", "aarch64", "aarch64-portable"]
STOCK_TOOLS = ["llama-server", "llama-bench", "llama-perplexity", "test-backend-ops"]
TOOLCHAIN = ("CXX", "CC", "CPPFLAGS", "CXXFLAGS", "CFLAGS", "LDFLAGS")
VISION_LIBRARY = "libmtmd.so"


@dataclass(frozen=True)
class Plan:
    """One build: where it works, where the result goes, what it is made from."""

    flavour: str
    stock: bool
    jobs: int
    vision: bool = True

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

    @property
    def compiler(self) -> str:
        return "aarch64-linux-gnu-g++" if self.is_cross else os.environ.get("CXX", "c++")

    @property
    def targets(self) -> list[str]:
        own = [] if self.stock else ["ggml"] if self.is_portable else ["ggml-cpu-baseline"]
        return ["llama", *own, *(["mtmd"] if self.vision or self.stock else []), *(STOCK_TOOLS if self.stock else [])]

    def stamp(self) -> dict[str, str]:
        """All that decides what the libraries are; equal stamps need no build."""
        return {
            # A cross build's libraries are current on the machine that they were built for, as its portable ones.
            "flavour": "portable" if self.is_portable and not self.stock else self.name,
            "machine": "aarch64" if self.is_cross else platform.machine(),
            "cpu": cpu_features() if self.flavour == "native" else "",
            "build_id": build_id(),
            "build": digest([ROOT / "vendor" / "CMakeLists.txt", *([] if self.stock else sorted(KERNELS.rglob("*")))]),
            "compiler": told() if self.is_portable else toolchain(self.compiler),
            "vision": "yes" if self.vision else "no",
        }


def cpu_features() -> str:
    """A native build is for one kind of CPU: a home directory carried to another machine must rebuild."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    lines = re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.M)
    return hashlib.sha256(lines[0].encode()).hexdigest()[:16] if lines else ""


def toolchain(compiler: str) -> str:
    """The compiler and all that the environment tells it; CMake would go on with what it was first told."""
    try:
        done = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True, check=False)
        version = done.stdout.partition("\n")[0]
    except OSError:
        version = "missing"
    return f"{version} {told()}".strip()


def told() -> str:
    return " ".join(f"{name}={value}" for name in TOOLCHAIN if (value := os.environ.get(name)))


def platform_tag() -> str:
    """The wheel tag of this machine; glibc is not checked, so it says linux, not manylinux."""
    return f"linux_{platform.machine()}"


def configure(plan: Plan, source: Path) -> None:
    args: list[str | Path] = ["cmake", "-S", ROOT / "vendor", "-B", plan.build_dir, "-G", "Ninja"]
    args += ["-DCMAKE_BUILD_TYPE=Release", f"-DLLAMA_SOURCE_DIR={source}", f"-DAXION_BUILD_ID={build_id()}"]
    args += [f"-DAXION_FLAVOUR={'portable' if plan.is_portable else plan.flavour}"]
    args += [f"-DGGML_AXION_DIR={'' if plan.stock else KERNELS}"]
    args += [f"-DAXION_TOOLS={'ON' if plan.stock else 'OFF'}"]
    if plan.is_cross:
        args += ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
        args += ["-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"]
    start_anew_where_the_toolchain_changed(plan)
    log = plan.build_dir / "configure.log"
    say(f"configuring ({plan.name})")
    with log.open("w") as out:
        command = [str(a) for a in args]
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=tool_path(), check=False)
    if done.returncode:
        sys.stderr.write(log.read_text()[-4000:])
        raise BuildError(f"cmake could not configure the build; all of its words are in {log.relative_to(ROOT)}")


def start_anew_where_the_toolchain_changed(plan: Plan) -> None:
    """CMake keeps the compiler and the flags of its first run, whatever the environment says later."""
    record, now = plan.build_dir / "toolchain.txt", toolchain(plan.compiler)
    if plan.build_dir.exists() and (not record.exists() or record.read_text() != now):
        say("another compiler, or other flags: everything is compiled anew")
        shutil.rmtree(plan.build_dir)
    plan.build_dir.mkdir(parents=True, exist_ok=True)
    record.write_text(now)


def tool_path() -> dict[str, str]:
    """cmake and ninja come from pip: beside the interpreter that runs this."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def compile_libraries(plan: Plan) -> None:
    say(f"compiling with {plan.jobs} jobs; the first time takes minutes")
    log = plan.build_dir / "compile.log"
    command = ["ninja", "-C", str(plan.build_dir), f"-j{plan.jobs}", *plan.targets]
    try:
        is_done = run_ninja(command, tool_path(), log)
    except FileNotFoundError:
        raise BuildError("compiling: the program ninja is missing") from None
    if not is_done:
        raise BuildError(f"compiling failed; the lines above say why, all of them are in {log.relative_to(ROOT)}")


def install(plan: Plan) -> None:
    """Copy the libraries with upstream's names, SONAMEs as links; the stamp goes last."""
    target = plan.library_dir
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    built = [p for p in (plan.build_dir / "bin").rglob("lib*.so*") if "llama-common" not in p.name or plan.stock]
    for path in sorted(built):
        if plan.vision or plan.stock or not path.name.startswith(VISION_LIBRARY):
            shutil.copy2(path, target / path.name, follow_symlinks=False)
    (target / STAMP).write_text(json.dumps(plan.stamp(), indent=1) + "\n")
    say(f"libraries are in {target.relative_to(ROOT)}")


def is_current(plan: Plan) -> bool:
    try:
        stamp = json.loads((plan.library_dir / STAMP).read_text())
    except (OSError, ValueError):
        return False
    # With the library for images where none was asked for is fine.
    return stamp in (plan.stamp(), plan.stamp() | {"vision": "yes"})


def check_compiler(plan: Plan) -> None:
    program = plan.compiler.split()[0]
    package = "g++-aarch64-linux-gnu" if plan.is_cross else "g++"
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


def clean(plan: Plan) -> None:
    """Remove all that a build left, but not the sources."""
    for directory in (plan.build_dir, plan.library_dir):
        shutil.rmtree(directory, ignore_errors=True)


def wants_vision() -> bool:
    """Whether a model that is on this machine comes with a projector, or the library for it was built before."""
    from axion_llm.config import Settings
    from axion_llm.errors import AxionError
    from axion_llm.models.registry import load_registry, locate_mmproj

    if (LIBRARIES / VISION_LIBRARY).exists():
        return True
    try:
        settings = Settings.load()
        return any(locate_mmproj(spec, settings) for spec in load_registry(settings))
    except AxionError:
        return False  # whoever needs these settings will say what is wrong with them


def chosen_flavour() -> str:
    flavour = os.environ.get("AXION_FLAVOUR") or "native"
    if flavour not in FLAVOURS:
        raise BuildError(f"AXION_FLAVOUR={flavour}: one of {', '.join(FLAVOURS)}")
    return flavour


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flavour", choices=FLAVOURS, help="what for; by default AXION_FLAVOUR, or native")
    parser.add_argument("--stock", action="store_true", help="upstream's code alone, with llama-server and other tools")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="compilers at once")
    parser.add_argument("--vision", choices=["on", "off", "auto"], default="on", help="the library for images")
    parser.add_argument("--force", action="store_true", help="build even when nothing changed")
    parser.add_argument("--clean", action="store_true", help="remove what earlier builds left, then build")
    args = parser.parse_args()
    try:
        vision = wants_vision() if args.vision == "auto" else args.vision == "on"
        flavour = args.flavour or ("native" if args.stock else chosen_flavour())
        plan = Plan(flavour, args.stock, args.jobs, vision)
        if args.clean:
            clean(plan)
        build(plan, args.force)
    except BuildError as e:
        print(f"vendor/build.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
