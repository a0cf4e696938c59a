"""Builds the status document from what the pool, the engines and the operating system say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from axion_llm import __version__
from axion_llm.api import status as doc
from axion_llm.errors import AxionError
from axion_llm.pool.interface import ModelStatus, RunningModel
from axion_llm.pool.report import Account, MemoryReport, ProcessMemory, WorkerMemory
from axion_llm.servers.service import Service
from axion_llm.worker.messages import EngineStats


async def build(service: Service, *, with_memory: bool) -> doc.Status:
    """`with_memory` walks page tables, some milliseconds for each gigabyte."""
    pool = service.pool
    stats = await engine_stats(pool.running())
    report = await pool.memory() if with_memory else None
    accounts = pool.accounts()
    models = [
        _model(
            status,
            stats.get(status.spec.name),
            accounts.get(status.spec.name, Account()),
            service.telemetry.tokens_per_second(status.spec.name),
            report.workers.get(status.spec.name) if report else None,
        )
        for status in pool.models()
    ]
    return doc.Status(
        version=__version__,
        state="stopping" if service.drain.is_stopping else "ready" if pool.is_ready() else "starting",
        uptime_seconds=time.time() - service.began,
        num_requests=service.drain.num_in_flight,
        models=models,
        max_loaded=service.settings.max_loaded,
        registry_error=pool.registry_error,
        kernels=None if pool.footing.is_full else f"{pool.footing}: {pool.footing.why}",
        machine=_machine(report) if report else None,
        server=_process(report.server) if report and report.server else None,
        spares=[_process(spare) for spare in report.spares] if report else [],
        totals=_totals(report) if report else None,
    )


async def engine_stats(running: Mapping[str, RunningModel]) -> dict[str, EngineStats]:
    """Of all that answer: one that is being unloaded, or hangs, is left out."""
    answers = await asyncio.gather(*(model.stats() for model in running.values()), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, AxionError):
            raise answer
    return {name: a for name, a in zip(running, answers, strict=True) if isinstance(a, EngineStats)}


def _model(
    status: ModelStatus, stats: EngineStats | None, account: Account, rate: float | None, memory: WorkerMemory | None
) -> doc.ModelReport:
    spec, now = status.spec, stats or EngineStats()
    return doc.ModelReport(
        name=spec.name,
        state=status.state,
        error=status.error,
        is_pinned=status.is_pinned,
        context_tokens=now.kv_total_tokens or spec.n_ctx,
        num_sequences=status.info.n_seq_max if status.info else spec.n_seq_max,
        kv_type=spec.kv_type,
        pid=status.pid,
        num_threads=status.num_threads,
        num_requests=status.num_requests,
        num_running=now.num_running,
        num_waiting=now.num_waiting,
        kv_used_tokens=now.kv_used_tokens,
        kv_cached_tokens=now.kv_cached_tokens,
        kv_total_tokens=now.kv_total_tokens,
        tokens_per_second=rate if status.state == "ready" else None,
        idle_seconds=status.idle_seconds if not status.num_requests else 0.0,
        is_answering=status.state != "ready" or stats is not None,
        num_loads=account.num_loads,
        last_load_seconds=account.last_load_seconds,
        num_crashes=account.num_crashes,
        memory=_model_memory(memory) if memory else None,
    )


def _model_memory(memory: WorkerMemory) -> doc.ModelMemory:
    return doc.ModelMemory(
        process=_process(memory.process),
        weights_bytes=memory.process.weights,
        kv_bytes=memory.kv,
        compute_bytes=memory.compute,
        other_bytes=memory.other,
        kv_16bit_bytes=memory.kv_at_16_bits,
    )


def _process(memory: ProcessMemory) -> doc.ProcessMemory:
    return doc.ProcessMemory(memory.pid, memory.rss, memory.pss, memory.uss)


def _machine(report: MemoryReport) -> doc.MachineReport:
    machine = report.machine
    return doc.MachineReport(machine.total, machine.available, machine.cgroup_limit, machine.cgroup_used)


def _totals(report: MemoryReport) -> doc.Totals:
    workers = report.workers.values()
    processes = [p for p in (report.server, *report.spares, *(w.process for w in workers)) if p]
    return doc.Totals(
        pss_bytes=sum(p.pss for p in processes),
        uss_bytes=sum(p.uss for p in processes),
        kv_bytes=sum(w.kv for w in workers),
        kv_16bit_bytes=sum(w.kv_at_16_bits for w in workers),
    )
