"""Ninja's run in one line that is rewritten: how far it is and how long it will take; its words go to a log."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

STATUS = "@%f/%t@ "  # as NINJA_STATUS
_STATUS = re.compile(r"^@(\d+)/(\d+)@ ")
QUIET_SECONDS = 10.0  # between two lines where none can be rewritten
TAIL_LINES = 60  # of a failed command, shown


class Progress:
    """What is said while files are compiled."""

    def __init__(self, out: TextIO, clock: float) -> None:
        self._out = out
        self._began = clock
        self._is_terminal = out.isatty()
        self._last_said = clock

    def step(self, done: int, total: int, clock: float) -> None:
        elapsed = clock - self._began
        text = f"[native] compiling: {done} of {total} files, {elapsed:.0f} s"
        if done and elapsed > QUIET_SECONDS and done < total:
            text += f", about {_roughly(elapsed / done * (total - done))} left"
        if self._is_terminal:
            self._out.write(f"\r\x1b[K{text}")
            self._out.flush()
        elif done == total or clock - self._last_said >= QUIET_SECONDS:
            self._last_said = clock
            self._out.write(text + "\n")
            self._out.flush()

    def end(self) -> None:
        if self._is_terminal:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _roughly(seconds: float) -> str:
    return f"{max(5, round(seconds / 5) * 5)} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def run_ninja(command: list[str], env: Mapping[str, str], log: Path) -> bool:
    """Whether it succeeded. All that it says is in `log`; when it fails, the end of that is shown."""
    progress = Progress(sys.stderr, time.monotonic())
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    options: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "errors": "replace",
    }
    with log.open("w") as record, subprocess.Popen(command, env={**env, "NINJA_STATUS": STATUS}, **options) as ninja:
        for line in ninja.stdout:
            record.write(line)
            tail.append(line)
            if found := _STATUS.match(line):
                progress.step(int(found[1]), int(found[2]), time.monotonic())
    progress.end()
    if ninja.returncode:
        sys.stderr.writelines(tail)
    return bool(ninja.returncode == 0)
