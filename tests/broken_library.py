"""A copy of the built libraries in which a kernel can be told to be bad: AXION_BREAK, see dispatch.cpp."""

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


def make(directory: Path) -> Path:
    """The libraries as they are, with one object compiled anew and linked in: seconds, not minutes."""
    libraries = directory / "lib"
    shutil.copytree(library_dir(), libraries, symlinks=True)
    commands = json.loads((BUILD / "compile_commands.json").read_text())
    compile_ = next(c["command"] for c in commands if c["file"].endswith("ggml-axion/dispatch.cpp"))
    words = shlex.split(compile_)
    old_object, new_object = words[words.index("-o") + 1], directory / "dispatch.o"
    words[words.index("-o") + 1] = str(new_object)
    subprocess.run([*words, "-DAXION_BREAK", "-Wno-invalid-pch"], cwd=BUILD, check=True)
    _link(old_object, new_object, libraries)
    return libraries


def _link(old_object: str, new_object: Path, libraries: Path) -> None:
    target = next(p for p in (BUILD / "bin").glob("libggml-cpu.so.*") if not p.is_symlink())
    ninja = ["ninja", "-C", str(BUILD), "-t", "commands", "-s", f"bin/{target.name}"]
    text = subprocess.run(ninja, capture_output=True, text=True, check=True, env=build.tool_path()).stdout
    command = text.strip().splitlines()[-1].replace(old_object, str(new_object))
    output = libraries / target.name
    output.unlink()
    subprocess.run(command.replace(f"-o bin/{target.name}", f"-o {output}"), shell=True, cwd=BUILD, check=True)
