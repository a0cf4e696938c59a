"""One model of the registry: where its file comes from and how it is to be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from axion_llm.worker.messages import KvType, Sampling, Speculation


@dataclass(frozen=True)
class Source:
    """Exactly one of: a hub repository, an installed Python package that carries the file, a path on this machine."""

    repo: str | None = None
    revision: str = "main"
    package: str | None = None
    path: Path | None = None


@dataclass(frozen=True)
class ModelSpec:
    name: str
    source: Source
    file: str  # the GGUF's name inside the repo or package; the last part of the path
    mmproj: str | None = None  # the vision projector's file in the same repo
    description: str = ""
    size_bytes: int | None = None  # of `file`, when known: checked after a download
    sha256: str | None = None
    n_ctx: int = 8192  # KV cache in tokens, shared by all sequences of the model
    n_seq_max: int = 16
    threads: int = 0
    kv_type: KvType = "q8_0"
    chat_template: str | None = None
    public_prompt: str | None = None  # a system message that clients of all tenants may share in the prefix cache
    speculation: Speculation = "off"  # ngram: guess the next tokens from the text so far
    sampling: Sampling = field(default_factory=Sampling)  # where a request says nothing
    roles: tuple[str, ...] = ()
    pin: bool = False  # once loaded it stays: neither idle time nor another model unloads it
    languages: tuple[str, ...] = ()  # it is good at, ISO 639-1; none: not said

    # As an expert of a consensus:
    expert_weight: float = 1.0  # of its vote while no calibration has measured it; 0: only when nobody else is there
    expert_first_token_seconds: float = 30.0  # since its model is loaded
    expert_deadline_seconds: float = 120.0
