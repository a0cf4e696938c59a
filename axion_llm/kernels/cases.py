"""What the self-test asks of each kernel: small graphs over odd sizes and extremes, each with its exact answer.

The answers are NumPy's, in double precision, from the definitions; no code of the libraries takes part but the reading
of a weight's bytes. `allowed` is how far a right kernel may be off, element by element: the bounds of tests/kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from axion_llm.kernels.graph import Graph, Tensor, quantized, row_bytes

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Data = F32 | tuple[str, tuple[int, ...], npt.NDArray[Any]]  # or: type, ne, bytes

TINY = 2.0**-119  # below it a result may be off by as much: it is lost in every sum
WEIGHT_TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K", "iq4_nl")
FLOAT_TYPES = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}  # and what rounding an activation to it may cost
f32 = ctypes.c_float


@dataclass(frozen=True)
class Case:
    """One graph. `want` and `allowed` have the result's shape. `needs`: kernels that ask whether this one may help."""

    kernel: str
    what: str
    inputs: Sequence[Data]
    build: Callable[..., object]  # (graph, *tensors)
    want: F64
    allowed: Any
    needs: tuple[str, ...] = ()


def cases(is_short: bool) -> Iterator[Case]:
    """Of every kernel that computes nodes by itself; fusions have graphs of their own (fusions.py)."""
    rng = np.random.default_rng(1)
    for make in (_soft_max, _rms_norm, _glu, _rope, _mul_mat, _mul_mat_float, _mul_mat_id, _attention, _hadamard, _amx):
        yield from make(rng, is_short)


def random(rng: np.random.Generator, *shape: int, size: float = 1.0) -> F32:
    values: F32 = rng.standard_normal(shape, dtype=np.float32) * np.float32(size)
    return values


# ---- rows


def _soft_max(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    for rows, width in [(3, 37)] if is_short else [(1, 1), (3, 5), (3, 37), (2, 64), (1, 4099), (5, 1000)]:
        for extreme in (None, -np.inf, np.nan):
            x = random(rng, rows, width, size=12)
            if extreme is not None:
                x[0, width // 2] = extreme
            with np.errstate(all="ignore"):
                below = x.astype(np.float64) - x.max(axis=1, keepdims=True)
                e = np.exp(below)
                want = e / e.sum(axis=1, keepdims=True)
                allowed = 1e-6 * np.abs(want) + np.nan_to_num(np.abs(below) * 2.0**-24 * want) + TINY

            def build(g: Graph, t: Tensor) -> None:
                g.op("ggml_soft_max_ext", t, None, f32(1), f32(0))

            yield Case("soft_max", f"{rows} x {width}, {extreme}", [x], build, want, allowed)


def _rms_norm(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    for rows, width in [(3, 77)] if is_short else [(1, 1), (3, 7), (3, 77), (1, 577), (4, 4096)]:
        for size in (1.0, 1e-3, 1e6):
            x, w = random(rng, rows, width, size=size), random(rng, width)
            wide = x.astype(np.float64)
            want = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * w

            def build(g: Graph, x: Tensor, w: Tensor) -> None:
                g.op("ggml_mul", g.op("ggml_rms_norm", x, f32(1e-5)), w)

            yield Case("rms_norm", f"{rows} x {width}, {size:g}", [x, w], build, want, 2e-6 * np.abs(want) + TINY)


def _glu(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    for rows, width in [(3, 45)] if is_short else [(1, 1), (3, 45), (2, 64), (1, 4099)]:
        x, up = random(rng, rows, width, size=8), random(rng, rows, width)
        x[0, : min(4, width)] = [0.0, -90.0, 90.0, 1e-40][: min(4, width)]
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            silu = wide / (1 + np.exp(-wide))
            inner = np.sqrt(2 / np.pi) * wide * (1 + 0.044715 * wide**2)
            gelu = 0.5 * wide * (1 + np.tanh(inner))
        ulps = (4 + 3 * np.abs(np.clip(wide, -90, 90))) * 2.0**-23
        for name, value in (("silu", silu), ("gelu", gelu)):
            # 1 + tanh is a small difference of large numbers where x is well below zero, in any single precision.
            off = ulps * np.abs(value) + TINY + (2.0**-22 * np.abs(np.maximum(wide, -10)) if name == "gelu" else 0)

            def alone(g: Graph, x: Tensor, name: str = name) -> None:
                g.op(f"ggml_{name}", x)

            def gated(g: Graph, x: Tensor, up: Tensor, name: str = name) -> None:
                g.op({"silu": "ggml_swiglu_split", "gelu": "ggml_geglu_split"}[name], x, up)

            yield Case("glu", f"{name} {rows} x {width}", [x], alone, value, off)
            wants = value * up
            yield Case("glu", f"{name} gate {rows} x {width}", [x, up], gated, wants, off * np.abs(up) * 2 + TINY)


def _rope(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    for mode in (0, 2):
        for dim in [64] if is_short else [64, 96, 128, 256]:
            tokens, heads = 3, 2
            x = random(rng, tokens, heads, dim)
            positions = np.array([0, 8191, 1 << 20], np.int32)
            pairs = np.arange(dim // 2)
            angle = positions.astype(np.float64)[:, None, None] * 10000.0 ** (-2.0 * pairs / dim)
            first, second = (pairs * 2, pairs * 2 + 1) if mode == 0 else (pairs, pairs + dim // 2)
            a, b = x[..., first].astype(np.float64), x[..., second].astype(np.float64)
            want, allowed = np.empty(x.shape), np.empty(x.shape)
            want[..., first] = a * np.cos(angle) - b * np.sin(angle)
            want[..., second] = a * np.sin(angle) + b * np.cos(angle)
            allowed[..., first] = allowed[..., second] = np.hypot(a, b) * 2.0**-22 + TINY

            def build(g: Graph, x: Tensor, p: Tensor, dim: int = dim, mode: int = mode) -> None:
                g.op("ggml_rope_ext", x, p, None, dim, mode, 4096, *(f32(v) for v in (10000, 1, 0, 1, 32, 1)))

            layout = "halves" if mode else "neighbours"
            yield Case("rope", f"{layout}, {dim}", [x, ("i32", (tokens,), positions)], build, want, allowed)


# ---- matrix products


def _product(g: Graph, w: Tensor, x: Tensor) -> None:
    g.op("ggml_mul_mat", w, x)


def _exact_product(x: F32, w: F32, step: float | None) -> tuple[F64, F64]:
    """[n, m], and how far off a sum in single precision may be, with activations rounded to a type (by `step`).

    `step` None: quantised weights, whose activations have 8 bits by blocks of 32 (mul_mat_quantise.h says how).
    """
    meant = (_in_eight_bits(x) if step is None else x).astype(np.float64)
    weights = w.astype(np.float64)
    products = np.abs(meant) @ np.abs(weights).T
    return meant @ weights.T, (2e-5 if step is None else 1e-6 + step) * products + TINY


def _in_eight_bits(x: F32) -> F64:
    blocks = x.reshape(len(x), -1, 32)
    most = np.abs(blocks).max(axis=2, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = np.where(most > 0, np.float32(127) / most, 0).astype(np.float32)
    q = np.rint(blocks * inverse)
    meant: F64 = q.astype(np.float64) * (most / np.float32(127))
    return meant.reshape(x.shape)


def _mul_mat(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    for type_name in WEIGHT_TYPES:
        for k, m, n in [(256, 21, 3), (256, 17, 17)] if is_short else _SHAPES:
            yield _product_case(rng, type_name, k, m, n)


def _product_case(rng: np.random.Generator, type_name: str, k: int, m: int, n: int) -> Case:
    raw, w = quantized(type_name, random(rng, m, k))
    x = random(rng, n, k)
    x[0, :32] = 0
    x[n // 2, k // 2] = 1e4
    data: list[Data] = [(type_name, (k, m), raw), x]
    return Case("mul_mat", f"{type_name} {k}x{m}, {n} columns", data, _product, *_exact_product(x, w, None))


_SHAPES = [(256, 1, 1), (256, 21, 1), (512, 21, 3), (256, 17, 8), (768, 33, 9), (2048, 49, 17), (256, 129, 40)]
_FLOAT_SHAPES = [(7, 3, 2), (33, 13, 1), (100, 21, 5), (64, 17, 9), (576, 65, 33), (1000, 9, 70)]


def _mul_mat_float(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    for type_name, step in FLOAT_TYPES.items():
        for k, m, n in [(100, 21, 1), (64, 17, 9)] if is_short else _FLOAT_SHAPES:
            values, x = random(rng, m, k), random(rng, n, k)
            raw, w = (values, values) if type_name == "f32" else quantized(type_name, values)
            data: list[Data] = [(type_name, (k, m), raw), x]
            what = f"{type_name} {k}x{m}, {n} columns"
            yield Case("mul_mat_float", what, data, _product, *_exact_product(x, w, step))


def _mul_mat_id(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    experts, used, k, m = 4, 2, 256, 21
    for type_name in ["q4_0"] if is_short else [*WEIGHT_TYPES, "f16"]:
        for n in (1, 13):
            raw, w = quantized(type_name, random(rng, experts * m, k))
            x = random(rng, n, 1, k)
            ids = rng.integers(0, experts, (n, used)).astype(np.int32)
            ids[:, 1] = (ids[:, 0] + 1) % experts
            each = w.reshape(experts, m, k)
            step = FLOAT_TYPES.get(type_name)
            answers = [[_exact_product(x[t], each[e], step) for e in ids[t]] for t in range(n)]
            want = np.array([[value[0] for value, _ in row] for row in answers])
            allowed = np.array([[off[0] for _, off in row] for row in answers])

            def build(g: Graph, w: Tensor, x: Tensor, ids: Tensor) -> None:
                g.op("ggml_mul_mat_id", w, x, ids)

            data: list[Data] = [(type_name, (k, m, experts), raw), x, ("i32", (used, n), ids)]
            yield Case("mul_mat_id", f"{type_name}, {n} tokens", data, build, want, allowed)


def _hadamard(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    for n in [64] if is_short else [64, 128, 256]:
        matrix = np.ones((1, 1))
        while len(matrix) < n:
            matrix = np.block([[matrix, matrix], [matrix, -matrix]])
        turn = (matrix / np.sqrt(n)).astype(np.float32)
        x = random(rng, 5, n)
        want = x.astype(np.float64) @ (matrix / np.sqrt(n)).T

        def build(g: Graph, turn: Tensor, x: Tensor) -> None:
            g.hint(g.op("ggml_mul_mat", turn, x), HINT_SRC0_IS_HADAMARD)

        allowed = 2e-6 * (np.abs(x).astype(np.float64).sum(axis=1, keepdims=True) / np.sqrt(n)) + TINY
        yield Case("hadamard", f"rows of {n}", [turn, x], build, want, np.broadcast_to(allowed, want.shape))


HINT_SRC0_IS_HADAMARD = 1  # enum ggml_op_hint


def _amx(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    """Tiles that products of many columns, and attention over many rows, are computed with."""
    for k, m, n in [(256, 33, 17)] if is_short else [(256, 17, 9), (768, 33, 17), (2048, 129, 40)]:
        for type_name in WEIGHT_TYPES:
            yield replace(_product_case(rng, type_name, k, m, n), kernel="amx", needs=("mul_mat",))
    for dim, cells, queries in [(64, 70, 9)] if is_short else [(64, 70, 9), (128, 300, 40), (256, 1100, 33)]:
        yield replace(_attention_case(rng, "q8_0", dim, cells, queries), kernel="amx", needs=("flash_attn",))


# ---- attention


def _attention(rng: np.random.Generator, is_short: bool) -> Iterator[Case]:
    """The cache's exact meaning. F16: 2e-3 of the largest value (weights and V in half precision); q8_0: 2e-2."""
    shapes = [(64, 70, 1), (64, 70, 9)] if is_short else [(64, 1, 1), (64, 70, 9), (96, 33, 3), (128, 300, 40)]
    for kv_type in ("q8_0", "f16"):
        for dim, cells, queries in shapes if is_short else [*shapes, (128, 1100, 1), (256, 70, 5)]:
            yield _attention_case(rng, kv_type, dim, cells, queries)


def _attention_case(rng: np.random.Generator, kv_type: str, dim: int, cells: int, queries: int) -> Case:
    kv_heads, group = 2, 3
    q = random(rng, queries, kv_heads * group, dim)
    (k_raw, k), (v_raw, v) = (quantized(kv_type, random(rng, cells, kv_heads * dim)) for _ in "kv")
    visible = rng.random((queries, cells)) < 0.7
    visible[:, 0] = True
    mask = np.where(visible, 0, -np.inf).astype(np.float16)
    row = row_bytes(kv_type, dim)

    def build(g: Graph, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> None:
        sizes = (ctypes.c_int64(dim), ctypes.c_int64(cells), ctypes.c_int64(kv_heads))
        strides = (ctypes.c_size_t(row * kv_heads), ctypes.c_size_t(row), ctypes.c_size_t(0))
        views = [g.view("ggml_view_3d", t, *sizes, *strides) for t in (k, v)]
        turned = g.view("ggml_permute", q, 0, 2, 1, 3)
        g.op("ggml_flash_attn_ext", turned, *views, mask, f32(dim**-0.5), f32(0), f32(0))

    keys, values = (t.reshape(cells, kv_heads, dim).repeat(group, axis=1).astype(np.float64) for t in (k, v))
    scores = np.einsum("qhd,chd->qhc", q.astype(np.float64), keys) * dim**-0.5 + mask.astype(np.float64)[:, None, :]
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    want = np.einsum("qhc,chd->qhd", weights / weights.sum(axis=2, keepdims=True), values)
    allowed = np.full(want.shape, np.abs(values).max() * (2e-3 if kv_type == "f16" else 2e-2))
    cache: list[Data] = [(kv_type, (kv_heads * dim, cells), raw) for raw in (k_raw, v_raw)]
    what = f"{kv_type}, heads of {dim}, {queries} of {cells}"
    return Case("flash_attn", what, [q, *cache, ("f16", (cells, queries), mask)], build, want, allowed)
