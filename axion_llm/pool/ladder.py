"""Keeps a service on kernels that its machine can compute with: what to do when a worker ended at an instruction.

The decisions are kernels/footing.py; here are the processes that find out, the file that remembers, and the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

from axion_llm import native
from axion_llm.config import Settings, environment_on, library_dir
from axion_llm.errors import NativeLibraryError
from axion_llm.kernels import footing as footings
from axion_llm.kernels.footing import Footing, Probe
from axion_llm.models.registry import locate
from axion_llm.models.spec import ModelSpec
from axion_llm.worker.launch import describe_exit
from axion_llm.worker.messages import TEST_KERNELS

PROBE_SECONDS = 120.0  # it takes one on a usual machine
WELL_SECONDS = 600.0  # a probe that came through need not be made again so soon

Locate = Callable[[ModelSpec, Settings], "Path | None"]
RunProbe = Callable[[Footing, "Path | None"], Awaitable[Probe]]

_log = logging.getLogger(__name__)


class Ladder:
    """`model`: where the embedded model is, if it is."""

    def __init__(self, settings: Settings, model: Callable[[], Path | None], run_probe: RunProbe | None = None) -> None:
        self._path = settings.kernels_file
        self._model = model
        self._run_probe = run_probe or probe
        self._lock = asyncio.Lock()
        self._well: dict[Footing, float] = {}  # when a probe came through on it
        try:
            self._key = footings.key_of(native.read_stamp(library_dir()))
        except NativeLibraryError:  # the first load will tell
            self._key = ("", "")
        self.footing = footings.read(self._path, self._key)
        if not self.footing.is_full:
            _log.warning("computing with %s: %s", self.footing, self.footing.why)

    def worker_environment(self) -> dict[str, str]:
        return environment_on(self.footing.rung, self.footing.without)

    def worker_options(self) -> list[str]:
        """Once for each build and CPU a worker tests the kernels before it is of use."""
        return [] if self.footing.is_tested or self.footing.rung != "all" else [TEST_KERNELS]

    def note_test(self, wrong: list[str]) -> bool:
        """What a worker's self-test said; whether it changes what others should compute with."""
        new = tuple(name for name in wrong if name not in self.footing.without)
        if self.footing.is_tested and not new:
            return False
        if new:
            found = footings.step_down(self.footing, Probe(wrong=new), footings.now())
            assert found is not None
            self._enter(found)
        self._remember(replace(self.footing, is_tested=True))
        return bool(new)

    async def after_fault(self, at_its_start: Footing) -> bool:
        """A worker that began on `at_its_start` ended at an instruction: whether to try again on another footing.

        False: the embedded model computes well, so whatever that worker had loaded is to blame.
        """
        async with self._lock:
            if self.footing != at_its_start:
                return True
            if time.monotonic() - self._well.get(self.footing, -WELL_SECONDS) < WELL_SECONDS:
                return False
            while not (found := await self._run_probe(self.footing, self._model())).is_well:
                below = footings.step_down(self.footing, found, footings.now())
                if below is None:
                    _log.error("the embedded model does not load in any way: %s at %s", found.ended_by, found.at)
                    return False
                self._enter(below)
            self._well[self.footing] = time.monotonic()
            return self.footing != at_its_start

    def _enter(self, below: Footing) -> None:
        _log.error(
            "%s on this machine: from now on computing with %s. Please report it with what "
            "`axion-llm doctor --kernels` says; a new build tries everything again",
            below.why,
            below,
        )
        self._remember(below)

    def _remember(self, footing: Footing) -> None:
        self.footing = footing
        try:
            footings.write(self._path, self._key, footing)
        except OSError as error:
            _log.warning("%s cannot be written, so this is found out again at the next start: %s", self._path, error)


def embedded_model(registry: Iterable[ModelSpec], settings: Settings, locate: Locate = locate) -> Path | None:
    """The file of the model that comes with a Python package, for a probe; None when it is not installed."""
    paths = (locate(spec, settings) for spec in registry if spec.source.package)
    return next((path for path in paths if path), None)


async def probe(footing: Footing, model: Path | None) -> Probe:
    """In a child process, which may end as the worker did."""
    command = [sys.executable, "-m", "axion_llm.worker.probe", *([str(model)] if model else [])]
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment_on(footing.rung, footing.without),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PROBE_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        process.kill()
        await process.wait()
        return Probe(ended_by=f"no end in {PROBE_SECONDS:.0f} s")
    return read_probe(output, process.returncode or 0)


def read_probe(output: bytes, code: int) -> Probe:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    begun = [line["begin"] for line in lines if "begin" in line]
    wrong = tuple(line["kernel"] for line in lines if line.get("error", 0) > 1)
    return Probe(wrong, describe_exit(code) if code else None, begun[-1] if begun else "")
