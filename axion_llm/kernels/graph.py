"""Small graphs of ggml operations on the loaded CPU backend: what a kernel is measured on, without a model.

Only functions that the libraries export, through ctypes. A Graph is built by calling ggml's own constructors
(`g.op("ggml_mul_mat", a, b)`), then its inputs are filled, then it is run.
"""

from __future__ import annotations

import ctypes
import functools
import time
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from axion_llm import native

TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "q4_K": 12,
    "q5_K": 13,
    "q6_K": 14,
    "iq4_nl": 20,
    "i32": 26,
    "bf16": 30,
}
Tensor = ctypes.c_void_p
MAX_NODES = 4096


class _InitParams(ctypes.Structure):
    """struct ggml_init_params of ggml.h."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


_ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _TypeTraits(ctypes.Structure):
    """The beginning of struct ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _ToFloat),
    )


@functools.cache
def library() -> Any:
    """ggml: libggml.so and, through it, libggml-base.so."""
    ggml = ctypes.CDLL(str(native.load().directory / "libggml.so"), mode=ctypes.RTLD_GLOBAL)
    for name in ("ggml_nelements", "ggml_element_size"):
        getattr(ggml, name).restype = ctypes.c_int64
    ggml.ggml_nbytes.restype = ggml.ggml_row_size.restype = ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    for name in ("ggml_init", "ggml_new_graph_custom", "ggml_get_data", "ggml_backend_alloc_ctx_tensors"):
        getattr(ggml, name).restype = ctypes.c_void_p
    for name in ("ggml_backend_init_by_type", "ggml_backend_reg_by_name", "ggml_backend_reg_get_proc_address"):
        getattr(ggml, name).restype = ctypes.c_void_p
    return ggml


@functools.cache
def _backend(num_threads: int) -> ctypes.c_void_p:
    ggml = library()
    backend = ctypes.c_void_p(ggml.ggml_backend_init_by_type(0, None))  # 0: the CPU
    registry = ctypes.c_void_p(ggml.ggml_backend_reg_by_name(b"CPU"))
    address = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_set_n_threads")
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(address)(backend, num_threads)
    return backend


class Graph:
    """One graph and the memory of its tensors; `close` (or leaving the with block) frees both."""

    def __init__(self, num_threads: int) -> None:
        self._ggml = library()
        self._backend = _backend(num_threads)
        params = _InitParams(16 << 20, None, True)
        self._ctx = ctypes.c_void_p(self._ggml.ggml_init(params))
        self._graph = ctypes.c_void_p(
            self._ggml.ggml_new_graph_custom(self._ctx, ctypes.c_size_t(MAX_NODES), ctypes.c_bool(False))
        )
        self._inputs: list[tuple[Tensor, str, tuple[int, ...]]] = []
        self._buffer: ctypes.c_void_p | None = None
        self.last: Tensor | None = None

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._buffer:
            self._ggml.ggml_backend_buffer_free(self._buffer)
        self._ggml.ggml_free(self._ctx)

    def input(self, type_name: str, *ne: int) -> Tensor:
        """A tensor that `allocate` fills with random values; ne[0] is the row length, as ggml counts."""
        shape = (ctypes.c_int64 * len(ne))(*ne)
        tensor = self._tensor("ggml_new_tensor", ctypes.c_int(TYPES[type_name]), ctypes.c_int(len(ne)), shape)
        self._inputs.append((tensor, type_name, ne))
        return tensor

    def op(self, function: str, *arguments: Any) -> Tensor:
        """Call one of ggml's constructors; its result becomes part of the graph."""
        self.last = self._tensor(function, *arguments)
        self._ggml.ggml_build_forward_expand(self._graph, self.last)
        return self.last

    def view(self, function: str, *arguments: Any) -> Tensor:
        """The same for views, which cost nothing and enter the graph with whoever reads them."""
        return self._tensor(function, *arguments)

    def hint(self, tensor: Tensor, value: int) -> None:
        """Mark a matrix product, as llama.cpp does where it knows more of a matrix than its numbers."""
        self._ggml.ggml_mul_mat_set_hint(tensor, ctypes.c_int(value))

    def _tensor(self, function: str, *arguments: Any) -> Tensor:
        call = getattr(self._ggml, function)
        call.restype = ctypes.c_void_p
        tensor = call(self._ctx, *arguments)
        assert tensor, f"{function} returned no tensor"
        return ctypes.c_void_p(tensor)

    def allocate(self, rng: np.random.Generator | None = None) -> None:
        """Without `rng` inputs are left for `fill`."""
        buffer = self._ggml.ggml_backend_alloc_ctx_tensors(self._ctx, self._backend)
        if not buffer:
            raise MemoryError("no memory for the tensors of a graph")
        self._buffer = ctypes.c_void_p(buffer)
        if rng is None:
            return
        for tensor, type_name, ne in self._inputs:
            self._bytes(tensor)[:] = np.resize(_random_rows(type_name, ne[0], rng), self._ggml.ggml_nbytes(tensor))

    def fill(self, tensor: Tensor, values: npt.NDArray[Any]) -> None:
        self._bytes(tensor)[:] = np.frombuffer(values.tobytes(), np.uint8)

    def _bytes(self, tensor: Tensor) -> npt.NDArray[np.uint8]:
        size = self._ggml.ggml_nbytes(tensor)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._ggml.ggml_get_data(tensor)))

    def values(self, tensor: Tensor, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A tensor's numbers as they lie, not copied; for types that NumPy has."""
        return self._bytes(tensor).view(dtype)

    def num_bytes(self, tensor: Tensor) -> int:
        return int(self._ggml.ggml_nbytes(tensor))

    def result(self) -> npt.NDArray[np.float32]:
        """A copy of the last operation's output."""
        assert self.last
        values: npt.NDArray[np.float32] = self._bytes(self.last).view(np.float32).copy()
        return values

    def run(self) -> float:
        """Seconds for the whole graph."""
        started = time.perf_counter()
        status = self._ggml.ggml_backend_graph_compute(self._backend, self._graph)
        seconds = time.perf_counter() - started
        if status != 0:
            raise RuntimeError(f"ggml_backend_graph_compute failed with status {status}")
        return seconds


def row_bytes(type_name: str, num_values: int) -> int:
    return int(library().ggml_row_size(TYPES[type_name], num_values))


def quantized(type_name: str, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A matrix [rows, length] in a format's bytes, and what those bytes mean."""
    rows, length = values.shape
    raw = _to_bytes(type_name, values)
    meaning = np.empty((rows, length), np.float32)
    traits = library().ggml_get_type_traits(ctypes.c_int(TYPES[type_name])).contents
    traits.to_float(raw.ctypes.data, meaning.ctypes.data, rows * length)
    return raw, meaning


def _to_bytes(type_name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    rows, length = values.shape
    out = np.empty(rows * row_bytes(type_name, length), np.uint8)
    library().ggml_quantize_chunk(
        ctypes.c_int(TYPES[type_name]),
        ctypes.c_void_p(values.ctypes.data),
        ctypes.c_void_p(out.ctypes.data),
        ctypes.c_int64(0),
        ctypes.c_int64(rows),
        ctypes.c_int64(length),
        None,
    )
    return out


def _random_rows(type_name: str, length: int, rng: np.random.Generator, num_rows: int = 16) -> npt.NDArray[np.uint8]:
    """A few rows of random values as the format's bytes; the caller repeats them."""
    if type_name == "i32":
        return np.zeros(length * 4, np.uint8)
    values = rng.standard_normal((num_rows, length), dtype=np.float32)
    return values.view(np.uint8).reshape(-1) if type_name == "f32" else _to_bytes(type_name, values)
