"""Reads the header of a GGUF file: is it a whole model, what is in it, and how much memory will it need.

Only the header is read, in pieces, and vocabularies are stepped over, so a file of any size takes milliseconds. The file
is not trusted: every count and length is held against the bytes that are left and against fixed limits, so a damaged
or hostile header ends in ModelLoadError, never in a hang or in memory running out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn

from axion_llm.errors import ModelLoadError
from axion_llm.worker.messages import KvType

MAGIC = b"GGUF"
VERSIONS = (2, 3)

# Far above any real model, low enough that a header built to be slow is refused within a second or two.
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 16
MAX_STRINGS = 1 << 23  # all string arrays of a file together; a vocabulary of 256k with merges has 2^19
MAX_NAME_BYTES = 1 << 12  # a key, a tensor's name, a text that is kept; longer texts are stepped over
MAX_KEPT_NUMBERS = 1 << 10  # longest array that is kept: one value for each layer
MAX_DIMENSIONS = 4

_CHUNK_BYTES = 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

# (elements, bytes) of one block of each ggml type that can stand in a file, by ggml's number for it.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip

_KV_BLOCKS: dict[KvType, tuple[int, int]] = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34),
    "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24),
}  # fmt: skip

Value = int | float | bool | str | tuple[int | float | bool, ...]


@dataclass(frozen=True)
class Header:
    """What a GGUF says of itself. Counts that a file does not give (a vision projector has no layers) are 0."""

    path: Path
    version: int
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


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes a loaded model takes. `weights` are mapped from the file: shared and reclaimable; the rest is its own."""

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
            return _Reader(path, file, os.fstat(file.fileno()).st_size).header()
    except FileNotFoundError:
        raise ModelLoadError(f"{path}: no such file. {_PULL}") from None
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror}") from None


def estimate_bytes(header: Header, n_ctx: int, kv_type: KvType, n_ubatch: int = 512) -> MemoryNeed:
    """Memory of the model with a KV cache of `n_ctx` tokens (0: all it was trained for) and flash attention.

    KV is exact for models that attend to everything and an upper bound for sliding windows. Compute covers the two
    places where llama.cpp's buffer peaks for a step of `n_ubatch` tokens: the logits, and the attention mask.
    """
    cells = -(-(n_ctx or header.n_ctx_train) // 256) * 256
    elements, size = _KV_BLOCKS[kv_type]
    rows = (heads * length for heads in header.n_head_kv for length in (header.key_length, header.value_length))
    kv = sum(-(-row // elements) * size for row in rows) * cells
    hidden = 8 * header.n_embd + 2 * header.n_ff
    compute = 4 * n_ubatch * (max(header.n_vocab, cells) + hidden)
    return MemoryNeed(weights=header.tensor_bytes, kv=kv, compute=compute)


_PULL = "Get it with `axion-llm pull MODEL`, or correct its path in models.toml."
_AGAIN = "Remove it and download it again (`axion-llm pull MODEL`)."


class _Reader:
    """A cursor over the file that reads ahead in chunks and refuses to pass the file's end."""

    def __init__(self, path: Path, file: BinaryIO, file_bytes: int) -> None:
        self.path, self.file, self.file_bytes = path, file, file_bytes
        self.buffer = b""
        self.buffer_start = 0  # offset of the buffer in the file
        self.at = 0  # in the buffer; may lie beyond its end after a skip
        self.strings_left = MAX_STRINGS
        self.values: dict[str, Value] = {}
        self.n_tokens = 0

    # ---- the file, from its start to its end

    def header(self) -> Header:
        version = self._preamble()
        n_tensors, n_keys = self._number("Q"), self._number("Q")
        self._limit(n_keys, MAX_KEYS, "metadata keys")
        self._limit(n_tensors, MAX_TENSORS, "tensors")
        for _ in range(n_keys):
            self._key_and_value()
        self._no_split()
        n_params, tensor_bytes, end = self._tensors(n_tensors)
        if end > self.file_bytes:
            self._fail(f"truncated: expected {end:,} bytes, has {self.file_bytes:,}")
        return self._describe(version, n_params, tensor_bytes)

    def _preamble(self) -> int:
        """Magic and version, with an answer for each thing that is often found in a model's place."""
        if self.file_bytes == 0:
            self._fail("empty file")
        start = self.file.read(64)
        self.file.seek(0)
        if start.startswith(b"version https://git-lfs"):
            self._fail("a Git LFS pointer, not the model it stands for")
        if not start.startswith(MAGIC):
            self._fail(f"not a GGUF file (begins with {start[:8]!r})", "Only GGUF models can be served.")
        self._take(len(MAGIC))
        version = self._number("I")
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            self._fail(f"GGUF version {version} (known: {known}, little-endian)", "Convert it anew.")
        return version

    def _key_and_value(self) -> None:
        key = self._text(MAX_NAME_BYTES)
        kind = self._number("I")
        wanted = not key.startswith("tokenizer.")
        if kind == _STRING:
            value: Value | None = self._text_or_none() if wanted else self._skip(self._number("Q"))
        elif kind == _ARRAY:
            value = self._array(key)
        else:
            value = self._unpack(self._scalar(kind), key)[0]
        if wanted and value is not None:
            self.values[key] = value

    def _array(self, key: str) -> Value | None:
        kind, count = self._number("I"), self._number("Q")
        if key == "tokenizer.ggml.tokens":
            self.n_tokens = count
        if kind == _STRING:
            self._skip_strings(count)
            return None
        letter = self._scalar(kind)
        if count > MAX_KEPT_NUMBERS:
            self._skip(count * struct.calcsize(letter))
            return None
        return self._unpack(f"{count}{letter}", key)

    def _tensors(self, count: int) -> tuple[int, int, int]:
        """Elements, bytes, and where in the file the last tensor ends. Each must begin where the one before ended."""
        alignment = self._integer("general.alignment", 32)
        if alignment < 1 or alignment & (alignment - 1):
            self._fail(f"damaged header: alignment {alignment} is not a power of two")
        n_params = offset = end = 0
        for _ in range(count):
            elements, size = self._tensor(offset)
            n_params += elements
            end = offset + size
            offset = -(-end // alignment) * alignment
        data_start = -(-self._offset() // alignment) * alignment
        return n_params, end, data_start + end

    def _tensor(self, expected_offset: int) -> tuple[int, int]:
        name = self._text(MAX_NAME_BYTES)
        n_dims = self._number("I")
        self._limit(n_dims, MAX_DIMENSIONS, f"dimensions of tensor {name}")
        shape = self._unpack(f"{n_dims}Q", name)
        kind, offset = self._number("I"), self._number("Q")
        if kind not in _BLOCKS:
            self._fail(f"tensor {name} has the unknown type {kind}", "The file may be for a newer llama.cpp.")
        elements, size = _BLOCKS[kind]
        row = shape[0] if shape else 1
        if row % elements or offset != expected_offset:
            self._fail(f"damaged header: tensor {name} of shape {shape} at offset {offset}")
        return prod(shape), prod(shape) // elements * size

    # ---- what the values mean

    def _describe(self, version: int, n_params: int, tensor_bytes: int) -> Header:
        arch = self.values.get("general.architecture")
        if not isinstance(arch, str) or not arch:
            self._fail("no general.architecture in the header")
        n_layer = self._integer(f"{arch}.block_count")
        self._limit(n_layer, MAX_KEPT_NUMBERS, "layers")
        n_embd = self._integer(f"{arch}.embedding_length")
        heads = self._per_layer(f"{arch}.attention.head_count", n_layer, 0)
        n_head = max(heads, default=0)
        head_length = n_embd // n_head if n_head else 0
        return Header(
            path=self.path,
            version=version,
            architecture=arch,
            name=str(self.values.get("general.name", "")),
            file_bytes=self.file_bytes,
            tensor_bytes=tensor_bytes,
            n_params=n_params,
            n_vocab=self._integer(f"{arch}.vocab_size") or self.n_tokens,
            n_ctx_train=self._integer(f"{arch}.context_length"),
            n_layer=n_layer,
            n_embd=n_embd,
            n_ff=max(self._per_layer(f"{arch}.feed_forward_length", n_layer, 0), default=0),
            n_head=n_head,
            n_head_kv=self._per_layer(f"{arch}.attention.head_count_kv", n_layer, n_head),
            key_length=self._integer(f"{arch}.attention.key_length", head_length),
            value_length=self._integer(f"{arch}.attention.value_length", head_length),
        )

    def _integer(self, key: str, default: int = 0) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or value < 0:
            self._fail(f"damaged header: {key} = {value!r}, a count was expected")
        return value

    def _per_layer(self, key: str, n_layer: int, default: int) -> tuple[int, ...]:
        """One count for each layer; most files give a single number for all."""
        value = self.values.get(key)
        if not isinstance(value, tuple):
            return (self._integer(key, default),) * n_layer
        if len(value) != n_layer or not all(isinstance(v, int) and v >= 0 for v in value):
            self._fail(f"damaged header: {key} = {value!r}, {n_layer} counts were expected")
        return tuple(int(v) for v in value)

    def _no_split(self) -> None:
        count = self._integer("split.count", 1)
        if count > 1:
            join = "Join the parts with llama.cpp's `llama-gguf-split --merge`."
            self._fail(f"one of {count} parts of a model", join)

    # ---- bytes
