"""From a registry entry to a process that answers: looks at the file, has a worker open it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from axion_llm.config import VISION_LIBRARY, Settings, library_dir
from axion_llm.errors import ModelLoadError
from axion_llm.models.gguf_header import MemoryNeed, check_file, estimate_bytes
from axion_llm.models.registry import locate_mmproj
from axion_llm.models.spec import ModelSpec
from axion_llm.pool.interface import ModelWorker
from axion_llm.pool.spare import Spares
from axion_llm.worker.messages import EMBEDDING_TOKENS, Load

Locate = Callable[[ModelSpec, Settings], Path | None]
Estimate = Callable[[Path, ModelSpec], MemoryNeed]

_log = logging.getLogger(__name__)


def estimate(path: Path, spec: ModelSpec) -> MemoryNeed:
    """Reads the file's header; raises ModelLoadError when it is no whole GGUF."""
    header = check_file(path)
    need = estimate_bytes(header, spec.n_ctx, spec.kv_type)
    for_embeddings = estimate_bytes(header, min(EMBEDDING_TOKENS, header.n_ctx_train), spec.kv_type)
    return replace(need, kv=need.kv + for_embeddings.kv)


def projector_bytes(path: Path) -> int:
    """Of a vision projector: weights, which are read and not mapped, and half as much to compute with.

    gemma3's takes 0.3 GB for an image beside its 0.85 GB.
    """
    return check_file(path).tensor_bytes * 3 // 2


@dataclass(frozen=True)
class FileStamp:
    """Tells whether a path still is the file that was opened, and whether that was written to since."""

    path: Path
    inode: int
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp | None:
        """None when there is no such file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class Candidate:
    path: Path
    need: MemoryNeed
    stamp: FileStamp | None
    mmproj: Path | None = None


class Loader:
    def __init__(self, settings: Settings, spares: Spares, locate: Locate, estimate: Estimate) -> None:
        self._settings = settings
        self._spares = spares
        self._locate, self._estimate = locate, estimate

    def is_on_machine(self, spec: ModelSpec) -> bool:
        return self._locate(spec, self._settings) is not None

    def inspect(self, spec: ModelSpec) -> Candidate:
        """Reads files: for a thread."""
        path = self._locate(spec, self._settings)
        if path is None:
            raise ModelLoadError(missing(spec))
        need, mmproj = self._estimate(path, spec), locate_mmproj(spec, self._settings)
        if mmproj and not (library_dir() / VISION_LIBRARY).exists():
            _log.warning("%s: takes no images, for the library for them is not built: run scripts/build", spec.name)
            mmproj = None
        elif mmproj:
            need = replace(need, compute=need.compute + projector_bytes(mmproj))
        elif spec.mmproj:
            _log.warning("%s: its projector %s is not on this machine, so it takes no images", spec.name, spec.mmproj)
        return Candidate(path, need, FileStamp.of(path), mmproj)

    async def start(
        self,
        spec: ModelSpec,
        candidate: Candidate,
        num_threads: int,
        *,
        is_wanted: bool,
        on_crash: Callable[[str], None],
    ) -> tuple[ModelWorker, float]:
        """The worker, and how many seconds it took.

        `is_wanted`: a request waits for it. `on_crash` is told why its process ended by itself.
        """
        began = time.monotonic()
        worker = await self._spares.take()
        try:
            await worker.load(
                self._message(spec, candidate, num_threads, is_wanted), self._settings.load_timeout_seconds
            )
        except ModelLoadError:
            if why := await worker.ended():
                on_crash(why)
            raise
        return worker, time.monotonic() - began

    def _message(self, spec: ModelSpec, candidate: Candidate, num_threads: int, is_wanted: bool) -> Load:
        return Load(
            name=spec.name,
            path=str(candidate.path),
            mmproj=str(candidate.mmproj) if candidate.mmproj else None,
            n_ctx=spec.n_ctx,
            n_seq_max=spec.n_seq_max,
            kv_type=spec.kv_type,
            num_threads=num_threads,
            chat_template=spec.chat_template,
            step_seconds=self._settings.step_ms / 1e3,
            steps_per_decision=self._settings.num_scheduler_steps,
            speculation=spec.speculation,
            max_waiting=self._settings.max_queue,
            max_waiting_tokens=self._settings.max_queue_tokens,
            warm_up=not is_wanted,
        )


def missing(spec: ModelSpec) -> str:
    if spec.source.path is not None:
        return f"{spec.name}: its file {spec.source.path} does not exist"
    if spec.source.package is not None:
        return f"{spec.name}: the Python package {spec.source.package} that carries it is not installed"
    return f"{spec.name} is not on this machine yet; get it with: axion-llm pull {spec.name}"
