"""A pool with its surroundings, for tests to load, break and crowd."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from axion_llm.config import Settings
from axion_llm.errors import (
    ModelLoadError,
    ModelNotFound,
)
from axion_llm.models.gguf_header import MemoryNeed
from axion_llm.models.spec import ModelSpec, Source
from axion_llm.pool.interface import ModelStatus
from axion_llm.pool.machine import Memory
from axion_llm.pool.pool import Pool
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Event, Generate, Sampling
from tests.fakes.processes import FAKE_COMMAND

GIB = 1 << 30
LONG = "tokens=100000 delay=0.005"


class Machine:
    """A pool with its surroundings: models by name, each told by its file's name how to behave."""

    def __init__(self, models: dict[str, str], **settings: Any) -> None:
        self.files: dict[str, str | None] = dict(models)
        self.need = dict.fromkeys(models, 0)
        self.error: str | None = None
        self.new_files: dict[str, str | None] | None = None  # for the next reload
        self.contexts: dict[str, int] = {}
        self.new_contexts: dict[str, int] = {}
        self.memory = Memory(16 * GIB, 32 * GIB)
        self.ids = itertools.count()
        self.workers: list[WorkerClient] = []
        self.estimating: Callable[[], None] = lambda: None
        defaults = {"warm": 0, "spare_workers": 0, "shutdown_grace_seconds": 1.0, "load_timeout_seconds": 10.0}
        self.settings = Settings(**defaults | settings)
        self.pool = Pool(
            self,
            self.settings,
            new_worker=self.new_worker,
            locate=self.locate,
            estimate=self.estimate,
            read_memory=lambda: self.memory,
        )

    def get(self, name: str) -> ModelSpec:
        if name not in self.files:
            raise ModelNotFound(name)
        return ModelSpec(name, Source(repo="r"), f"{name}.gguf", n_ctx=self.contexts.get(name, 8192))

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def has_changed(self) -> bool:
        return self.new_files is not None

    def reload(self) -> None:
        self.files, self.new_files = self.new_files or self.files, None
        self.contexts = {**self.contexts, **self.new_contexts}

    def __iter__(self) -> Iterator[ModelSpec]:
        return map(self.get, list(self.files))

    def locate(self, spec: ModelSpec, settings: Settings) -> Path | None:
        file = self.files[spec.name]
        return Path("/models") / file if file is not None else None

    def estimate(self, path: Path, spec: ModelSpec) -> MemoryNeed:
        self.estimating()
        if path.name == "garbage":
            raise ModelLoadError(f"{path} is not a GGUF file")
        return MemoryNeed(self.need[spec.name], 0, 0)

    def new_worker(self) -> WorkerClient:
        hang_seconds = self.settings.hang_seconds
        self.workers.append(WorkerClient(FAKE_COMMAND, grace_seconds=1.0, hang_seconds=hang_seconds))
        return self.workers[-1]

    # ---- what a test does with it

    async def ask(self, name: str, prompt: str = "tokens=2") -> list[Event]:
        async with self.pool.lease(name) as model:
            request = Generate(f"r{next(self.ids)}", prompt, Sampling())
            return [event async for event in model.generate(request)]

    def asking(self, name: str, prompt: str = "tokens=2") -> asyncio.Task[list[Event]]:
        return asyncio.create_task(self.ask(name, prompt))

    def status(self, name: str) -> ModelStatus:
        return next(status for status in self.pool.models() if status.spec.name == name)

    def state(self, name: str) -> str:
        return self.status(name).state

    def states(self) -> list[str]:
        return [status.state for status in self.pool.models()]

    async def loaded(self, *names: str) -> None:
        for name in names:
            await self.ask(name)


MachineMaker = Callable[..., Machine]
