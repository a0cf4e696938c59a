"""What the pool tells of itself: the account of each model, and where the memory went. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from axion_llm.worker.messages import EngineStats

UnloadReason = Literal["evicted", "idle", "asked", "removed", "changed"]
"""evicted: another model needed the room; idle: not used for long; asked: an administrator's order; removed: it is
no longer in the registry; changed: its file was replaced or written to."""


@dataclass(frozen=True)
class Account:
    """Of one model since the service began; totals that only grow, however often its process ends."""

    num_loads: int = 0  # that succeeded
    num_failed_loads: int = 0
    load_seconds: float = 0.0  # of those that succeeded, from the start of its process to the first possible token
    last_load_seconds: float | None = None
    num_crashes: int = 0  # ends of its process that nobody asked for
    num_restarts: int = 0  # loads that followed a crash
    ended: EngineStats = field(
        default_factory=EngineStats
    )  # sums over its processes that have ended; of use for counters only
    num_unloads: Mapping[UnloadReason, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ProcessMemory:
    """In bytes, resident pages only. A page that n processes share counts in full in RSS, as 1/n in PSS, not in USS."""

    pid: int
    rss: int
    pss: int
    uss: int
    weights: int = 0  # of RSS, pages of the model's file: mapped, shared with others, given up when memory is short


@dataclass(frozen=True)
class WorkerMemory:
    """A model's process and what it says of its buffers, in bytes."""

    process: ProcessMemory
    kv: int
    kv_at_16_bits: int  # for the same contexts
    other: int  # what the process held before it opened the model: interpreter, libraries

    @property
    def compute(self) -> int:
        """The rest: llama.cpp's buffers for steps and outputs as far as they have been touched, its vocabulary."""
        return max(0, self.process.rss - self.process.weights - self.kv - self.other)


@dataclass(frozen=True)
class MachineMemory:
    """In bytes, what the service may use. Page cache counts as available."""

    total: int
    available: int  # under the cgroup's limit too
    cgroup_limit: int | None = None  # of the tightest level
    cgroup_used: int = 0


@dataclass(frozen=True)
class MemoryReport:
    machine: MachineMemory
    server: ProcessMemory | None
    workers: Mapping[str, WorkerMemory]  # by model
    spares: tuple[ProcessMemory, ...] = ()  # that stand ready without a model
