"""One child process as the operating system sees it: directory, start, last output, exit, an end by force."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from axion_llm.errors import ServiceError
from axion_llm.worker.pulse import Pulse

DEFAULT_COMMAND = (sys.executable, "-m", "axion_llm.worker.process")
MAX_ENDPOINT_BYTES = 107  # sun_path less its final NUL
TERM_SECONDS = 1.0  # between SIGTERM and SIGKILL
TAIL_LINES = 20
MAX_LINE_BYTES = 4096

_log = logging.getLogger(__name__)


def private_directory() -> Path:
    """A new directory of mode 0700, short enough for a socket inside it."""
    for parent in (None, "/tmp"):
        try:
            path = Path(tempfile.mkdtemp(prefix="axion-", dir=parent))
        except OSError as error:
            raise ServiceError(f"no directory for the socket of a worker: {error}") from error
        if len(bytes(path / "s")) <= MAX_ENDPOINT_BYTES:
            return path
        path.rmdir()
    raise ServiceError(f"no directory for a socket: paths under {tempfile.gettempdir()} are too long")


def describe_exit(code: int) -> str:
    """`code` as asyncio gives it: negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps for want of memory" if -code == signal.SIGKILL else name


def is_fault(code: int) -> bool:
    """Whether a process ended at an instruction of its own: a bad one, a bad address, an assert."""
    return -code in _FAULTS


_FAULTS = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP)


class WorkerProcess:
    """Owns the process and the directory of its socket: `make_endpoint`, `start`, in the end `close`.

    The child has its own session: a Ctrl-C in the terminal reaches only the server, which ends its workers in
    order. The thread that calls `start` has to live as long as the child, which asks the kernel
    (PR_SET_PDEATHSIG) to die with it.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._env = env
        self.pulse: Pulse | None = None  # once it runs
        self._directory: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._exit: asyncio.Task[int] | None = None
        self._collector: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def tail(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self._tail)

    def make_endpoint(self) -> str:
        self._directory = private_directory()
        return f"ipc://{self._directory / 's'}"

    async def start(self, endpoint: str) -> None:
        try:
            self.pulse = pulse = Pulse()
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                endpoint,
                str(pulse.fd),
                pass_fds=(pulse.fd,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env=self._env,
            )
        except OSError as error:
            raise ServiceError(f"cannot start a worker process: {error}") from error
        pulse.handed_over()
        assert process.stdout is not None
        self._collector = asyncio.create_task(self._collect(process.stdout))
        self._exit = asyncio.create_task(process.wait())

    async def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The exit code, or None when it still runs after the time given."""
        if self._exit is None:
            return 0
        done, _ = await asyncio.wait({self._exit}, timeout=timeout_seconds)
        return self._exit.result() if done else None

    async def end(self, grace_seconds: float | None) -> None:
        """Wait for it to go by itself, then SIGTERM, then SIGKILL; without a grace SIGKILL at once."""
        if grace_seconds is not None:
            if await self.wait(grace_seconds) is not None:
                return
            self._signal(signal.SIGTERM)
            await self.wait(TERM_SECONDS)
        self.kill()
        await self.wait()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def remove_directory(self) -> None:
        """Nobody needs the name once both sides are connected; so nothing is left even if we are killed."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def close(self) -> None:
        """After its end (or instead of a start)."""
        if self._collector:
            self._collector.cancel()
        if self.pulse:
            self.pulse.close()
        self.remove_directory()

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _collect(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await output.read(65536):
            *lines, rest = (rest[-MAX_LINE_BYTES:] + chunk).split(b"\n")
            for line in lines:
                self._keep(line)
        if rest:
            self._keep(rest)

    def _keep(self, line: bytes) -> None:
        text = line[-MAX_LINE_BYTES:].decode("utf-8", "replace").rstrip()
        self._tail.append(text)
        _log.debug("worker %s: %s", self.pid, text)
