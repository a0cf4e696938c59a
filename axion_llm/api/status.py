"""The status document: what `GET /admin/status` answers and `axion-llm ps`, `memory` and the web page show.

Sizes are in bytes, times in seconds, contexts in tokens. A figure that is not known now is null.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from axion_llm.pool.interface import ModelState


class ProcessMemory(msgspec.Struct, frozen=True):
    """Resident pages. Shared ones count in full in RSS, by their share in PSS, not at all in USS."""

    pid: int
    rss_bytes: int
    pss_bytes: int
    uss_bytes: int


class ModelMemory(msgspec.Struct, frozen=True):
    """RSS of a model's process, split: weights + KV + compute + other."""

    process: ProcessMemory
    weights_bytes: int  # pages of the model's file: mapped, shared, given up by the kernel when memory is short
    kv_bytes: int
    compute_bytes: int  # buffers of steps and outputs as far as they have been touched; the vocabulary
    other_bytes: int  # interpreter and libraries
    kv_16bit_bytes: int  # what the KV cache would take with 16 bits, for the same contexts


class ModelReport(msgspec.Struct, frozen=True):
    name: str
    state: ModelState
    error: str | None  # why the last load failed
    is_pinned: bool
    context_tokens: int  # of the KV cache, all sequences together
    num_sequences: int  # decoded at the same time
    kv_type: str
    pid: int | None = None
    num_threads: int = 0
    num_requests: int = 0  # that use it or wait for it
    num_running: int = 0  # sequences in the KV cache
    num_waiting: int = 0  # sequences that wait for a place there
    kv_used_tokens: int = 0
    kv_cached_tokens: int = 0  # of them, kept for prompts that begin alike
    kv_total_tokens: int = 0
    tokens_per_second: float | None = None  # generated, in the last seconds
    idle_seconds: float | None = None  # since the last request
    is_answering: bool = True  # False: its process does not say how it is
    num_loads: int = 0
    last_load_seconds: float | None = None
    num_crashes: int = 0
    memory: ModelMemory | None = None  # when asked for


class MachineReport(msgspec.Struct, frozen=True):
    """What the service may use of the machine."""

    total_bytes: int
    available_bytes: int  # under the cgroup's limit too
    cgroup_limit_bytes: int | None
    cgroup_used_bytes: int  # without page cache


class Totals(msgspec.Struct, frozen=True):
    """Over all models that are loaded."""

    pss_bytes: int  # server and spare processes too
    uss_bytes: int
    kv_bytes: int
    kv_16bit_bytes: int

    @property
    def kv_saved_bytes(self) -> int:
        return self.kv_16bit_bytes - self.kv_bytes


class Status(msgspec.Struct, frozen=True):
    version: str
    state: Literal["starting", "ready", "stopping"]
    uptime_seconds: float
    num_requests: int  # in flight
    models: list[ModelReport]
    max_loaded: int
    registry_error: str | None = None  # a mistake in models.toml; what was read before it is in force
    kernels: str | None = None  # what workers compute with, and why, where that is less than everything
    machine: MachineReport | None = None  # these four: when memory is asked for
    server: ProcessMemory | None = None
    spares: list[ProcessMemory] = []  # processes that stand ready without a model
    totals: Totals | None = None


class Order(msgspec.Struct, frozen=True):
    """What `POST /admin/models/{name}/{load,unload,pin,unpin}` answers: how the model is now."""

    name: str
    state: ModelState
    is_pinned: bool


encode = msgspec.json.Encoder().encode
decode_status = msgspec.json.Decoder(Status).decode
decode_order = msgspec.json.Decoder(Order).decode
