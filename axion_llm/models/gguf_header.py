"""Reads the header of a GGUF file: is it a whole model, what is in it, and how much memory will it need.

Only the header is read and vocabularies are stepped over, so a file of any size takes milliseconds. The file
is not trusted: a damaged or hostile header ends in ModelLoadError, never in a hang or in memory running out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from axion_llm.errors import ModelLoadError
from axion_llm.models.gguf_cursor import BadFile, Cursor, Skipped, Value
from axion_llm.worker.messages import KvType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 12
MAX_TENSORS = 1 << 16
MAX_LAYERS = 512  # llama.cpp's
MIN_ALIGNMENT = 32  # of tensors in memory, which are those of the file
MIN_CONTEXT, MAX_CONTEXT = 8, 2**31 - 1  # tokens
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
PROJECTOR = "clip"  # the architecture of files that hold no language model
MAX_DIMENSIONS = 4

_TOKENS = "tokenizer.ggml.tokens"

# (elements, bytes) of one block of each ggml type that can stand in a file, by ggml's number for it.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip

_KV_BLOCKS: dict[KvType, tuple[int, int]] = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34),
    "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a GGUF says of itself. A count that it does not give (a vision projector has no layers) is 0."""

    path: Path
    architecture: str
    name: str
    file_bytes: int
    tensor_bytes: int
    n_params: int
    n_vocab: int
    n_ctx_train: int  # tokens
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: tuple[int, ...]  # of each layer
    key_length: int
    value_length: int
    sliding_window: int  # tokens; 0: every layer attends to everything


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes a loaded model takes. `weights` are mapped from the file: shared and reclaimable."""

    weights: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute


def check_file(path: Path) -> Header:
    """The header of a whole GGUF file; raises ModelLoadError that says what is wrong and what to do."""
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except BadFile as bad:
        raise ModelLoadError(f"{path}: {bad.reason}. {bad.advice}") from None
    except FileNotFoundError:
        advice = "Get it with `axion-llm pull MODEL`, or correct its path in models.toml."
        raise ModelLoadError(f"{path}: no such file. {advice}") from None
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror}.") from None


def estimate_bytes(header: Header, n_ctx: int, kv_type: KvType, n_ubatch: int = 512) -> MemoryNeed:
    """Memory of the model with a KV cache of `n_ctx` tokens (0: all it was trained for) and flash attention.

    KV is exact where every layer attends to everything and an upper bound for sliding windows. Compute covers
    the two places where llama.cpp's buffer peaks in a step of `n_ubatch` tokens, the logits and the attention
    masks; it comes out up to a fifth too high.
    """
    cells = _round_up(n_ctx or header.n_ctx_train, 256)
    elements, size = _KV_BLOCKS[kv_type]
    rows = [n * length for n in header.n_head_kv for length in (header.key_length, header.value_length)]
    kv = cells * sum(_round_up(row, elements) // elements * size for row in rows)
    mask = 2 * cells * (2 if header.sliding_window else 1)
    hidden = 4 * (8 * header.n_embd + 2 * header.n_ff)
    compute = n_ubatch * (max(4 * header.n_vocab, mask) + hidden)
    return MemoryNeed(weights=header.tensor_bytes, kv=kv, compute=compute)


def kv_bytes_per_value(kv_type: KvType) -> float:
    elements, size = _KV_BLOCKS[kv_type]
    return size / elements


def _read(path: Path, file: BinaryIO) -> Header:
    file_bytes = os.fstat(file.fileno()).st_size
    _recognise(file.read(64))
    cursor = Cursor(file, file_bytes)
    cursor.skip(len(MAGIC))
    _check_version(cursor.number("I"))
    n_tensors = cursor.count(MAX_TENSORS, "tensors")
    facts = _Facts(_metadata(cursor, cursor.count(MAX_KEYS, "metadata keys")))
    n_params, tensor_bytes, end, has_experts = _tensors(cursor, n_tensors, facts.alignment())
    if end > file_bytes:
        raise BadFile(f"truncated: expected {end:,} bytes, has {file_bytes:,}")
    facts.check(has_experts)
    return facts.header(path, file_bytes, tensor_bytes, n_params)


def _recognise(start: bytes) -> None:
    """An answer for each thing that is often found in a model's place."""
    if not start:
        raise BadFile("empty file")
    if start.startswith(b"version https://git-lfs"):
        raise BadFile("a Git LFS pointer, not the model it stands for")
    if not start.startswith(MAGIC):
        raise BadFile(f"not a GGUF file, it begins with {start[:8]!r}", "Only GGUF models can be served.")


def _check_version(version: int) -> None:
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise BadFile(f"GGUF version {version}; known are {known}, little-endian", "Convert the model anew.")


def _metadata(cursor: Cursor, n_keys: int) -> dict[str, Value]:
    """All keys; of the tokenizer's only the vocabulary's length is of use."""
    values: dict[str, Value] = {}
    for _ in range(n_keys):
        key = cursor.text("a metadata key")
        value = cursor.value()
        if key == _TOKENS or not key.startswith("tokenizer."):
            values[key] = value
    return values


def _tensors(cursor: Cursor, count: int, alignment: int) -> tuple[int, int, int, bool]:
    """Elements, bytes, where in the file the last tensor ends, and whether any is of experts.

    Each begins where the one before ended.
    """
    n_params = tensor_bytes = end = 0
    has_experts = False
    for _ in range(count):
        start = _round_up(end, alignment)
        name, elements, size = _tensor(cursor, start)
        has_experts |= "_exps." in name
        n_params, tensor_bytes, end = n_params + elements, tensor_bytes + size, start + size
    data_start = _round_up(cursor.offset, alignment) if count else cursor.offset
    return n_params, tensor_bytes, data_start + end, has_experts


def _tensor(cursor: Cursor, start: int) -> tuple[str, int, int]:
    name = cursor.text("a tensor's name")[:64]
    n_dims = cursor.count(MAX_DIMENSIONS, f"dimensions of tensor {name}", "I")
    shape = [int(n) for n in cursor.numbers("Q", n_dims)]
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in _BLOCKS:
        raise BadFile(f"tensor {name} has the unknown type {kind}", "It may be made for a newer llama.cpp.")
    elements, size = _BLOCKS[kind]
    if offset != start or (shape[0] if shape else 1) % elements:
        raise BadFile(f"damaged header: tensor {name} of shape {shape} at offset {offset}")
    return name, prod(shape), prod(shape) // elements * size


class _Facts:
    """The metadata of one file, read by meaning."""

    def __init__(self, values: dict[str, Value]) -> None:
        self.values = values
        arch = values.get("general.architecture")
        if not isinstance(arch, str) or not arch:
            raise BadFile("no general.architecture in the header")
        self.arch = arch
        if (parts := self._count("split.count")) > 1:
            join = "Join them with llama.cpp's `llama-gguf-split --merge`."
            raise BadFile(f"one of {parts} parts of a model", join)

    def alignment(self) -> int:
        value = self._count("general.alignment", 32)
        if value < MIN_ALIGNMENT or value & (value - 1):
            raise BadFile(f"damaged header: alignment {value} is not a power of two from {MIN_ALIGNMENT} on")
        return value

    def check(self, has_experts: bool) -> None:
        """What llama.cpp takes for granted, and ends its process over where it is not so."""
        arch = self.arch
        if arch == PROJECTOR:
            return
        for key, low, high in (
            ("block_count", 1, MAX_LAYERS),
            ("context_length", MIN_CONTEXT, MAX_CONTEXT),
            ("embedding_length", 1, 1 << 20),
        ):
            if not low <= (value := self._count(f"{arch}.{key}")) <= high:
                raise BadFile(f"damaged header: {arch}.{key} = {value:,}, {low:,} to {high:,} can be served")
        num_experts, num_used = (self._count(f"{arch}.expert{part}_count") for part in ("", "_used"))
        if bool(num_experts) != has_experts or not (num_used <= num_experts and bool(num_used) == has_experts):
            told = (
                f"{num_experts} experts of which {num_used} are used, and {'' if has_experts else 'no '}tensors of them"
            )
            raise BadFile(f"damaged header: {told}")
        scaling = self.values.get(f"{arch}.rope.scaling.type", "none")
        if scaling not in ROPE_SCALINGS:
            raise BadFile(
                f"the rope scaling {repr(scaling)[:64]} is not known", "It may be made for a newer llama.cpp."
            )

    def header(self, path: Path, file_bytes: int, tensor_bytes: int, n_params: int) -> Header:
        arch = self.arch
        name, tokens = self.values.get("general.name"), self.values.get(_TOKENS)
        n_layer = self._count(f"{arch}.block_count")
        if n_layer > MAX_LAYERS:
            raise BadFile(f"damaged header: {n_layer:,} layers")
        n_embd = self._count(f"{arch}.embedding_length")
        n_head = max(self._per_layer(f"{arch}.attention.head_count", n_layer), default=0)
        head_length = n_embd // n_head if n_head else 0
        return Header(
            path=path,
            architecture=arch,
            name=name if isinstance(name, str) else "",
            file_bytes=file_bytes,
            tensor_bytes=tensor_bytes,
            n_params=n_params,
            n_vocab=tokens.length if isinstance(tokens, Skipped) else self._count(f"{arch}.vocab_size"),
            n_ctx_train=self._count(f"{arch}.context_length"),
            n_layer=n_layer,
            n_embd=n_embd,
            n_ff=max(self._per_layer(f"{arch}.feed_forward_length", n_layer), default=0),
            n_head=n_head,
            n_head_kv=self._per_layer(f"{arch}.attention.head_count_kv", n_layer, n_head),
            key_length=self._count(f"{arch}.attention.key_length", head_length),
            value_length=self._count(f"{arch}.attention.value_length", head_length),
            sliding_window=self._count(f"{arch}.attention.sliding_window"),
        )

    def _count(self, key: str, default: int = 0) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or value < 0:
            raise BadFile(f"damaged header: {key} = {repr(value)[:64]}, a count was expected")
        return value

    def _per_layer(self, key: str, n_layer: int, default: int = 0) -> tuple[int, ...]:
        """One count for each layer; most files give a single number for all."""
        value = self.values.get(key)
        if not isinstance(value, tuple):
            return (self._count(key, default),) * n_layer
        if len(value) != n_layer or not all(isinstance(v, int) and v >= 0 for v in value):
            raise BadFile(f"damaged header: {key} = {repr(value)[:64]}, {n_layer} counts were expected")
        return tuple(int(v) for v in value)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
