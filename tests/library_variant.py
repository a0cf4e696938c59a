"""A copy of the built libraries with some files of ours compiled otherwise: seconds where a build takes minutes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from axion_llm.config import library_dir

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "vendor"))
import build  # noqa: E402

BUILD = ROOT / ".build" / "native"


def broken(directory: Path) -> Path:
    """One in which a kernel can be told to be bad: AXION_BREAK, see dispatch.cpp."""
    return make(directory, "-DAXION_BREAK", ["dispatch.cpp"])


def with_modelled_tiles(directory: Path) -> Path:
    """One that computes with AMX' tiles in plain C++ (amx_model.h), on any CPU with AVX2."""
    return make(directory, "-DAXION_AMX_MODEL", sorted(path.name for path in build.KERNELS.glob("*.cpp")))


def make(directory: Path, flag: str, files: list[str]) -> Path:
    libraries = directory / "lib"
    shutil.copytree(library_dir(), libraries, symlinks=True)
    library = next(p for p in (BUILD / "bin").glob("libggml-cpu.so.*") if not p.is_symlink())
    link = _link_command(library.name)
    for command in json.loads((BUILD / "compile_commands.json").read_text()):
        source = Path(command["file"])
        if source.parent == build.KERNELS and source.name in files:
            words = shlex.split(command["command"])
            at = words.index("-o") + 1
            new = str(directory / f"{source.stem}.o")
            link = link.replace(words[at], new)
            words[at] = new
            subprocess.run([*words, flag, "-Wno-invalid-pch"], cwd=BUILD, check=True)
    output = libraries / library.name
    output.unlink()
    subprocess.run(link.replace(f"-o bin/{library.name}", f"-o {output}"), shell=True, cwd=BUILD, check=True)
    return libraries


def _link_command(name: str) -> str:
    ninja = ["ninja", "-C", str(BUILD), "-t", "commands", "-s", f"bin/{name}"]
    text = subprocess.run(ninja, capture_output=True, text=True, check=True, env=build.tool_path()).stdout
    return text.strip().splitlines()[-1]
