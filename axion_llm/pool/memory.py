"""Where the memory went: walks the page tables of every process of the service."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from axion_llm.models.gguf_header import kv_bytes_per_value
from axion_llm.pool.machine import Memory
from axion_llm.pool.report import MachineMemory, MemoryReport, ProcessMemory, WorkerMemory
from axion_llm.worker.messages import KvType, Loaded


@dataclass(frozen=True)
class Tenant:
    """A loaded model, as far as its memory goes."""

    name: str
    pid: int
    file: Path | None
    kv_type: KvType
    info: Loaded


def measure(pid: int, model_file: Path | None = None) -> ProcessMemory | None:
    """Takes some milliseconds per gigabyte: not for the event loop. None: there is no such process any more."""
    try:
        maps = psutil.Process(pid).memory_maps(grouped=True)
    except (psutil.Error, OSError):
        return None
    file = str(model_file.resolve()) if model_file else None
    return ProcessMemory(
        pid=pid,
        rss=sum(m.rss for m in maps),
        pss=sum(m.pss for m in maps),
        uss=sum(m.private_clean + m.private_dirty for m in maps),
        weights=sum(m.rss for m in maps if m.path == file),
    )


def report(machine: Memory, tenants: Iterable[Tenant], spare_pids: Iterable[int]) -> MemoryReport:
    workers = {tenant.name: worker for tenant in tenants if (worker := _worker(tenant))}
    return MemoryReport(
        MachineMemory(
            machine.total_bytes, machine.available_bytes, machine.cgroup_limit_bytes, machine.cgroup_used_bytes
        ),
        measure(os.getpid()),
        workers,
        tuple(found for pid in spare_pids if (found := measure(pid))),
    )


def _worker(tenant: Tenant) -> WorkerMemory | None:
    process = measure(tenant.pid, tenant.file)
    if process is None:
        return None
    kv = tenant.info.kv_bytes
    return WorkerMemory(process, kv, kv_bytes_at_16_bits(kv, tenant.kv_type), tenant.info.base_bytes)


def kv_bytes_at_16_bits(kv_bytes: int, kv_type: KvType) -> int:
    """What a cache of so many bytes would take for the same contexts as F16."""
    return round(kv_bytes * kv_bytes_per_value("f16") / kv_bytes_per_value(kv_type))
