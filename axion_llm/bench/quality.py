"""What our kernels and an 8-bit cache cost in quality: perplexity and KL divergence against stock with an F16 cache.

All variants read the same windows of one text in step, so that their logits are compared token by token and never
stored. Stock is this library with every kernel of ours off.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from axion_llm import native
from axion_llm.engine.binding import Batch, LlamaModel
from axion_llm.worker.messages import KvType, Load

WINDOW = 1024  # tokens; every window starts with an empty cache
STEP = 256
UNSCORED = 64  # at the start of a window, where every model is only guessing
TOPICS = ("objects", "naming", "import", "try", "with", "class")
MAX_CHANGE_BY_CACHE = 0.005  # of perplexity, q8_0 against f16
MAX_CHANGE_BY_KERNELS = 0.001  # of perplexity, ours against stock

LogProbs = npt.NDArray[np.float64]  # [tokens, n_vocab]


def default_text() -> str:
    """The Python manual as every interpreter carries it, a text of its own for each release; some 150,000 tokens."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return "\n".join(topics[name] for name in [*TOPICS, *sorted(topics.keys() - set(TOPICS))])


@dataclass
class Variant:
    """One way to compute, and what has been seen of it."""

    kv_type: KvType
    is_ours: bool
    model: LlamaModel
    losses: list[float] = field(default_factory=list)  # -ln p of each scored token
    divergences: list[float] = field(default_factory=list)  # KL from the reference, in nats
    same_choice: list[bool] = field(default_factory=list)  # the likeliest token is the reference's

    @property
    def perplexity(self) -> float:
        return float(np.exp(np.mean(self.losses)))


@dataclass(frozen=True)
class Change:
    """A relative change of perplexity over the same tokens. It exceeds a limit when it does by two standard errors."""

    value: float
    error: float  # standard error

    def is_within(self, limit: float) -> bool:
        return abs(self.value) - 2 * self.error <= limit


@dataclass(frozen=True)
class QualityRow:
    kernels: str  # ours, stock
    kv_type: str
    perplexity: float
    kl_mean: float  # against stock with an F16 cache
    kl_p99: float
    same_choice: float
    by_kernels: Change | None  # of perplexity, against stock on the same cache
    by_cache: Change | None  # of perplexity, against an F16 cache with the same kernels
    passes: bool


def measure(path: Path, text: str, num_tokens: int, threads: int, say: Callable[[str], None]) -> list[QualityRow]:
    """Stock F16 is the reference and the first row."""
    library = native.load()
    names = {kernel.name for kernel in library.kernels() if kernel.enabled}
    kv_types: tuple[KvType, ...] = ("f16", "q8_0")
    variants = [Variant(kv, is_ours, _open(path, kv, threads)) for kv in kv_types for is_ours in (False, True)]
    tokens = variants[0].model.tokenize(text, add_special=False, parse_special=False)[:num_tokens]
    batch = Batch(STEP)
    try:
        for start in range(0, len(tokens) - UNSCORED - 1, WINDOW):
            window = tokens[start : start + WINDOW]
            for at in range(0, len(window), STEP):
                _step(library, names, variants, batch, window, at)
            for variant in variants:
                variant.model.truncate(0, 0)
            say(f"{min(start + WINDOW, len(tokens))} of {len(tokens)} tokens: perplexity {variants[0].perplexity:.3f}")
    finally:
        library.enable(names)
        for variant in variants:
            variant.model.close()
    return _rows(variants)


def _open(path: Path, kv_type: KvType, threads: int) -> LlamaModel:
    return LlamaModel(Load("quality", str(path), n_ctx=WINDOW, n_seq_max=1, n_batch=STEP, kv_type=kv_type), threads)


def _step(
    library: native.NativeLibrary, names: set[str], variants: list[Variant], batch: Batch, window: list[int], at: int
) -> None:
    """The tokens from `at` on, by every variant; those with a next token behind the unscored start are scored."""
    part = window[at : at + STEP]
    scored = [i for i in range(len(part)) if at + i >= UNSCORED and at + i + 1 < len(window)]
    following = [window[at + i + 1] for i in scored]
    reference: LogProbs | None = None
    for variant in variants:
        library.enable(names if variant.is_ours else set())
        batch.clear()
        batch.add(part, at, 0, num_outputs=1)
        batch.outputs[: batch.size] = 1
        variant.model.decode(batch)
        found = _log_softmax(variant.model.logits(len(part))[scored])
        reference = found if reference is None else reference
        variant.losses += (-found[np.arange(len(scored)), following]).tolist()
        variant.divergences += (np.exp(reference) * (reference - found)).sum(axis=1).tolist()
        variant.same_choice += (reference.argmax(axis=1) == found.argmax(axis=1)).tolist()


def _log_softmax(logits: npt.NDArray[np.float32]) -> LogProbs:
    values: LogProbs = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def _change(seen: Variant, base: Variant) -> Change:
    gaps = np.array(seen.losses) - np.array(base.losses)
    return Change(seen.perplexity / base.perplexity - 1, float(gaps.std() / np.sqrt(len(gaps))))


def _rows(variants: list[Variant]) -> list[QualityRow]:
    by_name = {(v.kv_type, v.is_ours): v for v in variants}
    rows = []
    for v in variants:
        by_kernels = _change(v, by_name[v.kv_type, False]) if v.is_ours else None
        by_cache = _change(v, by_name["f16", v.is_ours]) if v.kv_type != "f16" else None
        kl = np.array(v.divergences)
        row = QualityRow(
            "ours" if v.is_ours else "stock",
            v.kv_type,
            v.perplexity,
            float(kl.mean()),
            float(np.quantile(kl, 0.99)),
            float(np.mean(v.same_choice)),
            by_kernels,
            by_cache,
            (by_kernels is None or by_kernels.is_within(MAX_CHANGE_BY_KERNELS))
            and (by_cache is None or by_cache.is_within(MAX_CHANGE_BY_CACHE)),
        )
        rows.append(row)
    return rows
