"""The whole product in an arm64 Debian, on several CPUs of qemu's. See scripts/arm-check --product."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from questions import Answers, ask_chat, ask_embedding, ask_story, ask_story_and_kill, differences, named
from server import FREE_PORTS, Server, TrialError, environment

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / ".build" / "arm-product"
ENTER = [ROOT / "scripts" / "trial" / "arm-root", "run"]
MODEL = "smollm2"


@dataclass(frozen=True)
class Cpu:
    """One of qemu's, with features off where qemu has no name for it, and the backend that must be chosen there.

    Two backends are the best on no CPU that qemu 7.2 knows: they are the only ones there when `is_alone`.
    """

    name: str
    qemu: str
    library: str
    is_alone: bool = False


CPUS = [
    Cpu("SVE2 i8mm", "max,sve-default-vector-length=16", "armv8.6_2"),
    Cpu("SVE i8mm 256 bit", "max,sve-default-vector-length=32", "armv8.6_1", is_alone=True),
    Cpu("SVE 256 bit", "max,sve-default-vector-length=32", "armv8.2_3", is_alone=True),
    Cpu("no SVE", "max,sve=off", "armv8.2_2"),
    Cpu("neoverse-n1", "neoverse-n1", "armv8.2_2"),
    Cpu("cortex-a76", "cortex-a76", "armv8.2_2"),
    Cpu("cortex-a72", "cortex-a72", "armv8.0_1"),
    Cpu("a64fx", "a64fx", "armv8.0_1"),  # SVE, but no dotprod, which all others want
]


@dataclass(frozen=True)
class Row:
    cpu: Cpu
    library: str
    ready_seconds: float
    all_seconds: float
    wrong: list[str]

    def __str__(self) -> str:
        verdict = "right" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        return (
            f"{self.cpu.name:<16} {self.library:<10} {self.ready_seconds:7.0f} s {self.all_seconds:7.0f} s  {verdict}"
        )


def ask(server: Server, is_recording: bool) -> list[str]:
    """What is wrong with what it says; as a recording only what it says after the kill can be."""
    with named("chat"):
        got = Answers(chat=ask_chat(server, MODEL))
    with named("streamed chat"):
        got.story = ask_story(server, MODEL)
    with named("embedding"):
        got.embedding = ask_embedding(server, MODEL)
    if is_recording:
        got.store()
    wrong = differences(got, Answers.stored())
    with named("streamed chat over a kill -9"):
        survived = ask_story_and_kill(server, MODEL)
    if survived != got.story:
        wrong.append(f"after the kill the stream said {survived!r}, not {got.story!r}")
    return wrong


def libraries(cpu: Cpu) -> Path:
    """Below the repository inside: all of the portable ones, or those with the one backend alone."""
    whole = Path(".build/portable/lib")
    if not cpu.is_alone:
        return whole
    only = Path(".build/only") / cpu.library
    inside = WORK / "root" / "srv" / "axion-llm"
    shutil.rmtree(inside / only, ignore_errors=True)
    (inside / only).mkdir(parents=True)
    for path in (inside / whole).iterdir():
        if not path.name.startswith("libggml-cpu-") or path.name == f"libggml-cpu-{cpu.library}.so":
            (inside / only / path.name).symlink_to(Path("../../..") / whole / path.name)
    return only


def try_cpu(cpu: Cpu, is_recording: bool = False) -> Row:
    own = {"QEMU_CPU": cpu.qemu, "AXION_FLAVOUR": "portable", "AXION_LIB_DIR": f"/srv/axion-llm/{libraries(cpu)}"}
    environ = environment(own)
    log = WORK / f"{cpu.qemu}.log"
    began = time.monotonic()
    server = Server([*ENTER, "scripts/serve", *FREE_PORTS, "--warm", "0"], log, environ)
    library, ready, wrong = "?", 0.0, []
    try:
        ready = server.wait()
        wrong = ask(server, is_recording)
        library = server.cpu_library(MODEL)
        if library != cpu.library:
            wrong.append(f"the backend {library} was chosen, not {cpu.library}")
        server.stop()
    except TrialError as error:
        wrong.append(str(error))
    finally:
        server.kill()
    return Row(cpu, library, ready, time.monotonic() - began, wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpus", help="some of them, by the names in the table, separated by ';' (all)")
    parser.add_argument("--record", action="store_true", help="store what the first says; all others are held to it")
    args = parser.parse_args()
    names = args.cpus.split(";") if args.cpus else [cpu.name for cpu in CPUS]
    chosen = [cpu for cpu in CPUS if cpu.name in names]
    if len(chosen) != len(names):
        parser.error(f"--cpus: some of {'; '.join(cpu.name for cpu in CPUS)}")
    rows = []
    for cpu in chosen:
        rows.append(try_cpu(cpu, args.record and not rows))
        print(rows[-1], flush=True)
    print(f"\n{'CPU':<16} {'backend':<10} {'ready':>9} {'in all':>9}")
    print(*rows, sep="\n")
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
