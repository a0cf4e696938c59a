"""Each kernel through the library, as a model calls it, against NumPy in double: random and extreme inputs.

The C++ programs beside this file hold the arithmetic to tighter bounds (exp to 2 ULP) and to the same bits for every
split; here the dispatch, the strides and the threads take part. A bound is stated with each test.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from axion_llm.kernels.graph import TYPES, Graph, row_bytes

F32 = npt.NDArray[np.float32]
TINY = 2.0**-119  # below it a result may be off by as much: it is lost in every sum

common = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
threads = st.sampled_from([1, 2, 3])
EXTREMES = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, -3e-45, 80.0, -200.0]
extremes = st.lists(
    st.tuples(st.integers(0, 2**31), st.sampled_from(EXTREMES)),
    max_size=4,
)


def compute(num_threads: int, arrays: list[Any], build: Callable[..., Any], shape: tuple[int, ...]) -> F32:
    """One operation on `arrays`: float32, or (type name, ne, bytes); `build(graph, *tensors)` adds it."""
    with Graph(num_threads) as graph:
        parts = [a if isinstance(a, tuple) else ("f32", a.shape[::-1], a) for a in arrays]
        tensors = [graph.input(name, *ne) for name, ne, _ in parts]
        build(graph, *tensors)
        graph.allocate(np.random.default_rng(0))
        for tensor, (_, _, values) in zip(tensors, parts, strict=True):
            graph.fill(tensor, values)
        graph.run()
        return graph.result().reshape(shape)


def random_array(seed: int, *shape: int, size: float = 1.0) -> F32:
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


def put(x: F32, places: list[tuple[int, float]]) -> None:
    for at, value in places:
        x.reshape(-1)[at % x.size] = value


def check(got: F32, want: npt.NDArray[np.float64], relative: float, absolute: Any = TINY) -> None:
    with np.errstate(all="ignore"):
        as_f32 = want.astype(np.float32)
        close = np.abs(got - want) <= relative * np.abs(want) + absolute
    same = close | (got == as_f32) | (np.isnan(got) & np.isnan(want))
    assert same.all(), [(i, got[tuple(i)], want[tuple(i)]) for i in np.argwhere(~same)[:5]]


# ---- rows


@common
@given(seeds, st.integers(1, 5000), st.integers(1, 4), st.floats(0.1, 30), extremes, threads)
def test_soft_max(seed: int, width: int, rows: int, size: float, places: Any, num_threads: int) -> None:
    """1e-6 relative and the rounding of w - max w; a row with NaN or +inf, or nothing but -inf, is NaN throughout."""
    x = random_array(seed, rows, width, size=size)
    put(x, places)
    got = compute(
        num_threads,
        [x],
        lambda g, t: g.op("ggml_soft_max_ext", t, None, ctypes.c_float(1), ctypes.c_float(0)),
        x.shape,
    )
    with np.errstate(all="ignore"):
        below = x.astype(np.float64) - x.max(axis=1, keepdims=True)
        e = np.exp(below)
        want = e / e.sum(axis=1, keepdims=True)
        rounding = np.nan_to_num(np.abs(below) * 2.0**-24 * want)
    check(got, want, 1e-6, rounding + TINY)


@common
@given(seeds, st.integers(1, 3000), st.integers(1, 4), st.floats(1e-3, 1e6), threads)
def test_rms_norm_with_its_weight(seed: int, width: int, rows: int, size: float, num_threads: int) -> None:
    """2e-6 relative: the norm's 1e-6 and the product."""
    x, w = random_array(seed, rows, width, size=size), random_array(seed + 1, width)

    def build(g: Graph, x: Any, w: Any) -> None:
        g.op("ggml_mul", g.op("ggml_rms_norm", x, ctypes.c_float(1e-5)), w)

    got = compute(num_threads, [x, w], build, x.shape)
    wide = x.astype(np.float64)
    check(got, wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * w, 2e-6)


@common
@given(seeds, st.integers(1, 3000), st.floats(0.1, 30), st.sampled_from([np.nan, np.inf, -1e30, 1e-40, 0.0]), threads)
def test_swiglu_and_silu(seed: int, width: int, size: float, extreme: float, num_threads: int) -> None:
    """(4 + 3 |x|) ULP of the exponential's, 2^-23 each."""
    x, up = random_array(seed, 1, width, size=size), random_array(seed + 1, 1, width)
    x[0, seed % width] = extreme
    with np.errstate(all="ignore"):
        silu = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))
        absolute = np.nan_to_num(posinf=0, x=(4 + 3 * np.abs(np.clip(x, -90, 90))) * 2.0**-23 * np.abs(silu)) + TINY
        gated = silu * up
        absolute_gated = np.nan_to_num(absolute * (np.abs(up) + 1), posinf=0)
    check(compute(num_threads, [x], lambda g, t: g.op("ggml_silu", t), x.shape), silu, 0, absolute)
    got = compute(num_threads, [x, up], lambda g, a, b: g.op("ggml_swiglu_split", a, b), x.shape)
    check(got, gated, 1e-6, absolute_gated)


@common
@given(seeds, st.sampled_from([0, 2]), st.sampled_from([64, 96, 128, 256]), st.integers(0, 2**24), threads)
def test_rope(seed: int, mode: int, dim: int, position: int, num_threads: int) -> None:
    """2^-22 of the pair's length, up to position 2^24 (beyond it the angle's double begins to show)."""
    tokens, heads = 3, 2
    x = random_array(seed, tokens, heads, dim)
    positions = np.array([position, position + 1, seed % 1000], np.int32)

    def build(g: Graph, x: Any, p: Any) -> None:
        numbers = [ctypes.c_float(v) for v in (10000, 1, 0, 1, 32, 1)]
        g.op("ggml_rope_ext", x, p, None, dim, mode, 4096, *numbers)

    got = compute(num_threads, [x, ("i32", (tokens,), positions)], build, x.shape)
    pairs = np.arange(dim // 2)
    angle = positions.astype(np.float64)[:, None, None] * 10000.0 ** (-2.0 * pairs / dim)
    first, second = (pairs * 2, pairs * 2 + 1) if mode == 0 else (pairs, pairs + dim // 2)
    a, b = x[..., first].astype(np.float64), x[..., second].astype(np.float64)
    want = np.empty(x.shape)
    want[..., first], want[..., second] = (
        a * np.cos(angle) - b * np.sin(angle),
        a * np.sin(angle) + b * np.cos(angle),
    )
    absolute = np.empty(x.shape)
    absolute[..., first] = absolute[..., second] = np.hypot(a, b) * 2.0**-22
    check(got, want, 0, absolute)


# ---- matrix products


def quantized(type_name: str, values: F32) -> tuple[npt.NDArray[np.uint8], F32]:
    """A matrix in a format's bytes, and what those bytes mean."""
    from axion_llm.kernels.graph import library

    rows, k = values.shape
    out = np.empty((rows, row_bytes(type_name, k)), np.uint8)
    numbers = (ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(k))
    pointers = (ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(out.ctypes.data))
    library().ggml_quantize_chunk(ctypes.c_int(TYPES[type_name]), *pointers, *numbers, None)
    return out, dequantize(out, GGMLQuantizationType(TYPES[type_name]))


@pytest.mark.parametrize(
    "type_name", ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K", "iq4_nl"]
)
@settings(max_examples=12, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(1, 70), st.integers(1, 20), threads)
def test_mul_mat(type_name: str, seed: int, blocks: int, m: int, n: int, num_threads: int) -> None:
    """Products of the weights' exact meaning. F32: rounding of the sum. F16, BF16: the activations rounded to the same
    type. Quantised: the activations to int8, half a step of the largest of their block."""
    k = 256 * blocks
    x = random_array(seed, n, k)
    if type_name == "f32":
        raw, w = (values := random_array(seed + 1, m, k)), values
    else:
        raw, w = quantized(type_name, random_array(seed + 1, m, k))
    got = compute(num_threads, [(type_name, (k, m), raw), x], lambda g, a, b: g.op("ggml_mul_mat", a, b), (n, m))
    want = x.astype(np.float64) @ w.astype(np.float64).T
    products = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64).T
    step = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}.get(type_name)
    if step is None:
        amax = np.abs(x).max(axis=1, keepdims=True)
        check(got, want, 0, 1e-6 * products + amax / 254 * 1.01 * np.abs(w).astype(np.float64).sum(axis=1))
    else:
        check(got, want, 0, (1e-6 + step) * products)


@common
@given(seeds, st.sampled_from(["f32", "q4_1", "q8_0"]), st.sampled_from([np.inf, np.nan, 1e-40]), threads)
def test_mul_mat_keeps_an_extreme_to_its_row(seed: int, type_name: str, extreme: float, num_threads: int) -> None:
    k, m, n = 256, 20, 9
    x = random_array(seed, n, k)
    raw = random_array(seed, m, k) if type_name == "f32" else quantized(type_name, random_array(seed, m, k))[0]

    def run(x: F32) -> F32:
        return compute(num_threads, [(type_name, (k, m), raw), x], lambda g, a, b: g.op("ggml_mul_mat", a, b), (n, m))

    plain = run(x)
    row = seed % n
    x[row, seed % k] = extreme
    spoilt = run(x)
    others = np.arange(n) != row
    assert np.array_equal(spoilt[others], plain[others])
    assert np.isfinite(spoilt[row]).all() == np.isfinite(extreme) or type_name != "f32"


# ---- attention


@settings(max_examples=30, deadline=None)
@given(
    seeds,
    st.sampled_from(["f16", "q8_0"]),
    st.sampled_from([64, 96, 128, 256]),
    st.integers(1, 700),
    st.integers(1, 12),
    st.booleans(),
    threads,
)
def test_attention(
    seed: int, kv_type: str, dim: int, cells: int, queries: int, has_masked_row: bool, num_threads: int
) -> None:
    """Against the cache's exact meaning. F16: 2e-3 of the largest value (weights and V in half precision). Q8_0: 2e-2
    (queries and weights in int8)."""
    assume(cells >= queries)
    rng = np.random.default_rng(seed)
    kv_heads, group = 2, 3
    q = random_array(seed, queries, kv_heads * group, dim)
    k, v = ((quantized(kv_type, random_array(seed + i, cells, kv_heads * dim))) for i in (1, 2))
    visible = rng.random((queries, cells)) < 0.7
    visible[:, 0] = True
    if has_masked_row:
        visible[-1] = False
    mask = np.where(visible, 0, -np.inf).astype(np.float16)
    row = row_bytes(kv_type, dim)

    def build(g: Graph, q: Any, k: Any, v: Any, mask: Any) -> None:
        sizes = (ctypes.c_int64(dim), ctypes.c_int64(cells), ctypes.c_int64(kv_heads))
        strides = (ctypes.c_size_t(row * kv_heads), ctypes.c_size_t(row), ctypes.c_size_t(0))
        views = [g.view("ggml_view_3d", t, *sizes, *strides) for t in (k, v)]
        numbers = (ctypes.c_float(dim**-0.5), ctypes.c_float(0), ctypes.c_float(0))
        g.op("ggml_flash_attn_ext", g.view("ggml_permute", q, 0, 2, 1, 3), *views, mask, *numbers)

    cache = [(kv_type, (kv_heads * dim, cells), raw) for raw, _ in (k, v)]
    arrays = [q, *cache, ("f16", (cells, queries), mask)]
    got = compute(num_threads, arrays, build, (queries, kv_heads * group, dim))
    keys, values = (t[1].reshape(cells, kv_heads, dim).repeat(group, axis=1).astype(np.float64) for t in (k, v))
    scores = np.einsum("qhd,chd->qhc", q.astype(np.float64), keys) * dim**-0.5 + mask.astype(np.float64)[:, None, :]
    with np.errstate(all="ignore"):
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        want = np.einsum("qhc,chd->qhd", weights / weights.sum(axis=2, keepdims=True), values)
    if has_masked_row:
        assert not np.any(got[-1]), "a row that sees nothing is zero"
        got, want = got[:-1], want[:-1]
    largest = np.abs(values).max()
    check(got, want, 0, largest * (2e-3 if kv_type == "f16" else 2e-2))
