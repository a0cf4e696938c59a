"""`run` and `chat` as a person uses them: real processes, a real model, a terminal (a pty)."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import MODEL, ServeProcess, eventually

PROGRAM = [sys.executable, "-c", "from axion_llm.cli.main import main; main()"]
SECONDS = 60.0
LONG = "Write a very long story about a cat"  # what the model answers at great length


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home of its own and ports where nobody listens."""
    found = {k: v for k, v in os.environ.items() if not k.startswith("AXION_")}
    ports = {f"AXION_{port}_PORT": "1" for port in ("STANDARD", "STREAMING", "CONSENSUS")}
    homes = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}
    return {**found, **ports, **homes, "TERM": "xterm-256color"}


def run(environ: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], env=environ, input=stdin, capture_output=True, text=True, timeout=SECONDS
    )


def test_run_without_a_service_loads_the_model_itself(environ: dict[str, str]) -> None:
    arguments = ["run", MODEL, "What is the capital of France?", "--temperature", "0", "--max-tokens", "20"]
    done = run(environ, *arguments, "--stats")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 10 and done.stdout.endswith("\n")
    assert re.search(r"\d+ tokens in, \d+ out · first after \d+ ms", done.stderr)
    left = [p for p in psutil.process_iter(["cmdline"]) if "axion_llm.worker.process" in (p.info["cmdline"] or [])]
    assert not [p for p in left if p.environ().get("XDG_DATA_HOME") == environ["XDG_DATA_HOME"]]


def test_run_asks_the_service_that_runs(environ: dict[str, str], service: ServeProcess) -> None:
    environ["AXION_STANDARD_PORT"] = service.urls["standard"].rpartition(":")[2]
    arguments = ["run", MODEL, "Repeat:", "--temperature", "0", "--max-tokens", "8", "--json"]
    done = run(environ, *arguments, stdin="one two three\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["completion_tokens"] <= 8
    assert "POST /v1/chat/completions 200" in service.log


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "nope", "hi"], 1, "error: There is no model"),
        (["run", MODEL], 2, "axion-llm chat"),
        (["rum"], 2, "run"),
    ],
)
def test_exit_codes(environ: dict[str, str], arguments: list[str], code: int, said: str) -> None:
    done = run(environ, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


class Terminal:
    """A program on a pty: what it shows, and keys for it."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self.shown = ""
        self._seen = 0
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job, as CI may be, has it ignored
            os.execve(PROGRAM[0], [*PROGRAM, *arguments], environ)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def expect(self, pattern: str) -> str:
        """Waits for it behind what was expected before."""
        found = self._wait(pattern, SECONDS)
        assert found is not None, f"no {pattern!r} in {self.shown[self._seen :]!r}"
        return found

    def press_until(self, key: str, pattern: str) -> None:
        """Python notices a Ctrl-C before it waits for a key at the next key only: then it is pressed again."""
        for _ in range(10):
            self.type(key)
            if self._wait(pattern, 3.0) is not None:
                return
        raise AssertionError(f"no {pattern!r} in {self.shown[self._seen :]!r}")

    def _wait(self, pattern: str, seconds: float) -> str | None:
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown[self._seen :], re.S)):
            if time.monotonic() > deadline:
                return None
            if select.select([self._fd], [], [], 0.1)[0]:
                self.shown += os.read(self._fd, 65536).decode(errors="replace")
        self._seen += found.end()
        return found[0]

    def exit_code(self) -> int:
        deadline = time.monotonic() + SECONDS
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self._fd)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, self.shown
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._fd, 65536).decode(errors="replace")
                except OSError:  # it has closed its side
                    time.sleep(0.05)

    def kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._fd)
        except OSError:
            pass


@pytest.fixture
def terminal(environ: dict[str, str], service: ServeProcess) -> Iterator[Terminal]:
    environ["AXION_STREAMING_PORT"] = service.urls["streaming"].rpartition(":")[2]
    started = Terminal(environ, "chat", MODEL, "--temperature", "0")
    yield started
    started.kill()


def test_a_conversation_in_a_terminal(terminal: Terminal, environ: dict[str, str], service: ServeProcess) -> None:
    terminal.expect(rf"{MODEL}.*Ctrl-D ends.*>>> ")
    terminal.type("What is the capital of France? One word.\r")
    terminal.expect(r"\w\w.*>>> ")

    terminal.type("/set max_tokens 2000\r")
    terminal.expect(r"max_tokens = 2000.*>>> ")
    terminal.type(f"{LONG}\r")
    terminal.expect(r"\bcat\b.*\bcat\b")
    terminal.type("\x03")  # Ctrl-C: the answer ends, not the program
    terminal.expect(r"stopped.*>>> ")
    eventually(lambda: "finish=disconnected" in service.log)

    terminal.type("/stats\r")
    terminal.expect(r"stopped · first after \d+ ms.*>>> ")
    terminal.type("half a line")
    terminal.expect("half a line")
    terminal.press_until("\x03", r"Ctrl-D or /exit ends.*>>> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    history = Path(environ["XDG_DATA_HOME"]) / "axion-llm" / "chat_history"
    assert "/set max_tokens 2000" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_ends_run(environ: dict[str, str], service: ServeProcess) -> None:
    environ["AXION_STANDARD_PORT"] = service.urls["standard"].rpartition(":")[2]
    terminal = Terminal(environ, "run", MODEL, LONG, "--max-tokens", "2000")
    try:
        terminal.expect(r"\w+ \w+")
        terminal.type("\x03")
        assert terminal.exit_code() == 130
        assert "Traceback" not in terminal.shown
    finally:
        terminal.kill()
