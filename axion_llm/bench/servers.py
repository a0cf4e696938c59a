"""The two sides of a serving benchmark as child processes: our server, and llama-server from the same sources."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from axion_llm.bench.client import BenchError, get

START_SECONDS = 120


@dataclass(frozen=True)
class Side:
    """How one server is started; {port} in the command is filled in."""

    name: str
    command: list[str]
    ready_path: str
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What both sides share."""

    model: Path
    n_ctx: int = 32768
    parallel: int = 16
    kv_type: str = "q8_0"
    threads: int = 2


def ours(s: Settings, directory: Path, name: str = "axion", environment: dict[str, str] | None = None) -> Side:
    registry = directory / f"{name}.toml"
    registry.write_text(
        f'[models.bench]\npath = "{s.model}"\ncontext = {s.n_ctx}\nparallel = {s.parallel}\n'
        f'kv_type = "{s.kv_type}"\nthreads = {s.threads}\n'
    )
    return Side(name, serve_command(registry), "/health", environment or {})


def serve_command(registry: Path) -> list[str]:
    """Our server with the models of that file only in use, none of them loaded at the start."""
    serve = [sys.executable, "-m", "axion_llm.cli.main", "serve", "--only", "standard", "--standard-port", "{port}"]
    return [*serve, "--models", str(registry), "--warm", "0", "--log-level", "warning"]


def stock(s: Settings, binary: Path) -> Side:
    command = [
        str(binary),
        "-m",
        str(s.model),
        "--alias",
        "bench",
        "--port",
        "{port}",
        "-np",
        str(s.parallel),
    ]
    command += ["-c", str(s.n_ctx), "-fa", "on", "-ctk", s.kv_type, "-ctv", s.kv_type]
    command += ["-t", str(s.threads), "--no-webui"]
    return Side("stock", command, "/health")


@contextlib.asynccontextmanager
async def running(side: Side) -> AsyncIterator[str]:
    """Start it, wait until it answers, give its base URL, stop it in the end."""
    port = _free_port()
    command = [part.format(port=port) for part in side.command]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, env=os.environ | side.environment
        )
        try:
            await _wait(side, f"http://127.0.0.1:{port}{side.ready_path}", process)
            yield f"http://127.0.0.1:{port}/v1"
        except BenchError as e:
            log.seek(0)
            raise BenchError(f"{e}\n{log.read()[-2000:].decode('utf-8', 'replace')}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 20)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _wait(side: Side, url: str, process: asyncio.subprocess.Process) -> None:
    for _ in range(START_SECONDS * 10):
        status, _body = await get(url)
        if status == 200:
            return
        if process.returncode is not None:
            raise BenchError(f"{side.name} ended with status {process.returncode} before it answered")
        await asyncio.sleep(0.1)
    raise BenchError(f"{side.name} did not answer within {START_SECONDS} s")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
