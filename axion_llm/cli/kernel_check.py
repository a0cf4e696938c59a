"""The self-test of `axion-llm doctor --kernels`: in a child process, begun again behind a kernel that ends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from axion_llm.config import environment_on
from axion_llm.worker.launch import describe_exit


@dataclass(frozen=True)
class KernelLine:
    """What is said of one kernel. `error`: the largest, as a part of what a right kernel may be off by."""

    kernel: str
    state: str  # right, wrong, crashed, unused: this machine leaves its work to upstream
    num_cases: int = 0
    error: float | None = None
    worst: str = ""

    @property
    def is_bad(self) -> bool:
        return self.state in ("wrong", "crashed")


def check_kernels() -> Iterator[KernelLine]:
    """All kernels of the library, whatever was found before."""
    bad: list[str] = []
    done: list[str] = []
    while True:
        at, code = "", 0
        for line in _run(bad, done):
            if "begin" in line:
                at = str(line["begin"])
            elif "exit" in line:
                code = int(str(line["exit"]))
            else:
                if float(str(line["error"])) <= 1:
                    done.append(at)
                else:
                    bad.append(at)
                yield _line(line)
        if not code:
            return
        yield KernelLine(at or "(start)", "crashed", worst=f"it ended the process: {describe_exit(code)}")
        if not at:
            return
        bad.append(at)


def _run(bad: list[str], done: list[str]) -> Iterator[dict[str, object]]:
    command = [sys.executable, "-m", "axion_llm.kernels.self_test", "--without", ",".join(bad)]
    command += ["--done", ",".join(done)]
    with subprocess.Popen(command, env=environment_on("all", ()), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith("{"):
                yield json.loads(text)
        yield {"exit": process.wait()}


def _line(found: dict[str, object]) -> KernelLine:
    name, error, num = str(found["kernel"]), float(str(found["error"])), int(str(found["num_cases"]))
    state = "unused" if not num else "right" if error <= 1 else "wrong"
    return KernelLine(name, state, num, error if num else None, str(found["worst"]))
