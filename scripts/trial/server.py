"""The server on trial: a process started by some command, its ports read from what it says, its workers by id."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

READY_SECONDS = 1800.0  # emulated, on a machine with other work
ANSWER_SECONDS = 1800.0
STOP_SECONDS = 300.0
# What the service itself would give up: an emulated interpreter needs a minute and more for its imports.
PATIENCE = {"AXION_START_TIMEOUT_SECONDS": "1200", "AXION_HANG_SECONDS": "600", "AXION_LOAD_TIMEOUT_SECONDS": "1800"}
FREE_PORTS = [word for kind in ("standard", "streaming", "consensus") for word in (f"--{kind}-port", "0")]


class TrialError(Exception):
    """What went wrong on one CPU; the message is for the table."""


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Ours without anybody's settings of the service."""
    return {k: v for k, v in os.environ.items() if not k.startswith("AXION_")} | PATIENCE | changes


class Server:
    """Started at once; `wait`, then ask `urls`, in the end `stop`."""

    def __init__(self, command: Sequence[str | Path], log: Path, environ: Mapping[str, str]) -> None:
        self._log = log
        self._began = time.monotonic()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [str(word) for word in command], env=environ, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def urls(self) -> dict[str, str]:
        return dict(re.findall(r"^(standard|streaming|consensus) +(http://\S+)/v1$", self._said(), re.M))

    def wait(self) -> float:
        """Until it is ready; how many seconds that took."""
        self._until(lambda: re.search(r"^ready  ", self._said(), re.M) is not None, READY_SECONDS, "is not ready")
        return time.monotonic() - self._began

    def worker_pid(self, model: str) -> int:
        reply = httpx.get(f"{self.urls['standard']}/admin/status", timeout=ANSWER_SECONDS).raise_for_status()
        found = [m.get("pid") for m in reply.json()["models"] if m["name"] == model]
        if not found or not found[0]:
            raise TrialError(f"no process has {model}")
        return int(found[0])

    def cpu_library(self, model: str) -> str:
        """Which CPU backend the model's process has loaded: haswell, armv8.2_1, ..."""
        maps = Path(f"/proc/{self.worker_pid(model)}/maps").read_text()
        names = set(re.findall(r"/libggml-cpu-([^/\s]+?)\.so", maps))
        if len(names) != 1:
            raise TrialError(f"its worker has {len(names)} CPU backends open: {', '.join(sorted(names))}")
        return names.pop()

    def stop(self) -> None:
        """It ends by itself, well; if not, all that it started is killed."""
        try:
            self._process.send_signal(signal.SIGTERM)
            code = self._process.wait(STOP_SECONDS)
            if code:
                raise TrialError(f"it stopped with exit code {code}: {self.tail}")
        except subprocess.TimeoutExpired:
            raise TrialError("it does not stop") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """The server's workers ask the kernel to die with it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def tail(self) -> str:
        return self._said()[-1500:]

    def _said(self) -> str:
        text = self._log.read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def _until(self, is_so: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            if self._process.poll() is not None:
                raise TrialError(f"it ended with exit code {self._process.returncode}: {self.tail}")
            if time.monotonic() > deadline:
                raise TrialError(f"it {what} after {seconds:g} s: {self.tail}")
            time.sleep(0.2)
