"""The operations and shapes of `bench kernels`: layers of the 4B to 8B models the service is for.

A case builds a graph of one operation, several times over where one alone would be too short to time, or where its
weights would stay in the cache, as they never do in a model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from axion_llm.kernels.graph import Graph, row_bytes

WEIGHT_TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K", "iq4_nl", "f16", "bf16", "f32"]
LAYERS = [(4096, 4096), (4096, 14336), (9728, 2560)]  # inputs, outputs: attention, an 8B's gate, a 4B's down
PAST_THE_CACHES = 128 << 20  # bytes of weights that a graph of single columns walks over
f32 = ctypes.c_float


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    op: str
    name: str
    unit: str  # FLOP/s or B/s: what bounds it
    peak: str  # one of native.PEAKS or native.TILES; empty: its data lies in the caches and no peak is known
    amount: float  # FLOP or bytes of one run of the graph
    build: Callable[[Graph], None]  # operations only
    fill: Callable[[Graph], None] = lambda _: None  # inputs that may not be random
    tolerance: float = 1e-3  # of the normalised squared difference between ours and stock
    exact: Callable[[Graph], npt.NDArray[np.float64]] | None = None  # who is right where the two differ
    threads: int | None = None  # a fixed number
    fills_tiles: bool = False  # columns enough for AMX' tiles: their peak counts where the machine has them
    rival: str = ""  # one of bench.rivals, measured in turn with the two sides: `amount` per second is asked of it too


def all_cases(quick: bool) -> Iterator[Case]:
    yield from _mul_mat(quick)
    yield from _mul_mat_id(quick)
    yield from _flash_attn(quick)
    yield from _rows(quick)
    yield from _against_rivals()


# ---- matrix products


def _peak_of(type_name: str) -> str:
    return {"f32": "f32", "f16": "f32", "bf16": "bf16"}.get(type_name, "int8")


def _mul_mat(quick: bool) -> Iterator[Case]:
    types = ["q4_1", "q8_0", "q4_K", "f16"] if quick else WEIGHT_TYPES
    for type_name in types:
        for k, m in LAYERS[:1] if quick else LAYERS:
            for n in (1, 8, 512):
                if n == 512 and m * k > 5120 * 5120:
                    continue  # a second of stock's time: the others say the same
                yield _mul_mat_case(type_name, k, m, n)


def _mul_mat_case(type_name: str, k: int, m: int, n: int) -> Case:
    size = m * row_bytes(type_name, k)
    repeat = max(1, PAST_THE_CACHES // size) if n < 512 else 1

    def build(g: Graph) -> None:
        x = g.input("f32", k, n)
        for _ in range(repeat):
            g.op("ggml_mul_mat", g.input(type_name, k, m), x)

    name = f"{type_name} {k}x{m}, {n} column{'s' * (n > 1)}"
    if n == 1:
        return Case("mul_mat", name, "B/s", "read", repeat * size, build)
    flop = repeat * 2.0 * m * n * k
    return Case("mul_mat", name, "FLOP/s", _peak_of(type_name), flop, build, fills_tiles=n > 8)


def _mul_mat_id(quick: bool) -> Iterator[Case]:
    """Eight experts, two for a token."""
    k, m, num_experts, num_used = 2048, 1024, 8, 2
    for type_name in ["q4_K"] if quick else ["q4_0", "q4_K", "q6_K", "q8_0", "f16"]:
        for n in (1, 128):
            ids: list[ctypes.c_void_p] = []
            repeat = 16 if n == 1 else 1

            def build(
                g: Graph, n: int = n, t: str = type_name, r: int = repeat, ids: list[ctypes.c_void_p] = ids
            ) -> None:
                ids[:] = [g.input("i32", num_used, n)]
                x = g.input("f32", k, 1, n)
                for _ in range(r):
                    g.op("ggml_mul_mat_id", g.input(t, k, m, num_experts), x, ids[0])

            def fill(g: Graph, n: int = n, ids: list[ctypes.c_void_p] = ids) -> None:
                chosen = np.arange(n * num_used, dtype=np.int32).reshape(n, num_used) * 3 % num_experts
                g.fill(ids[0], chosen)

            flop = repeat * 2.0 * m * k * n * num_used
            name = f"{type_name} {num_used} of {num_experts} {k}x{m}, {n} token{'s' * (n > 1)}"
            if n == 1:
                read = repeat * num_used * m * row_bytes(type_name, k)
                yield Case("mul_mat_id", name, "B/s", "read", read, build, fill)
            else:
                yield Case("mul_mat_id", name, "FLOP/s", _peak_of(type_name), flop, build, fill)


# ---- attention

HEADS = {64: (32, 8), 96: (32, 8), 128: (32, 8), 256: (8, 4)}  # head size: query heads, KV heads


def _flash_attn(quick: bool) -> Iterator[Case]:
    for kv_type in ("q8_0", "f16"):
        for dim in [128] if quick else HEADS:
            for context in (512, 4096) if quick else (512, 4096, 32768):
                yield _flash_attn_case(kv_type, dim, context, 1)
                yield _flash_attn_case(kv_type, dim, context, 64 if context > 4096 else 512)


def _flash_attn_case(kv_type: str, dim: int, context: int, num_queries: int) -> Case:
    heads, kv_heads = HEADS[dim]
    if num_queries > 1:  # one group of heads: stock takes a second over it already
        heads, kv_heads = heads // kv_heads, 1
    masks: list[ctypes.c_void_p] = []
    last: list[ctypes.c_void_p] = []  # queries, K and V of the last operation
    row = row_bytes(kv_type, dim)
    size = 2 * context * kv_heads * row
    repeat = max(1, PAST_THE_CACHES // size) if num_queries == 1 else 1  # as layers of a model, each with its cache

    def build(g: Graph) -> None:
        queries = g.input("f32", dim, heads, num_queries)
        q = g.view("ggml_permute", queries, 0, 2, 1, 3)
        masks[:] = [g.input("f16", context, num_queries)]
        for _ in range(repeat):
            inputs = [g.input(kv_type, dim * kv_heads, context) for _ in "KV"]
            last[:] = [queries, *inputs]
            cache = [_cache(g, tensor, row, (dim, context, kv_heads)) for tensor in inputs]
            g.op("ggml_flash_attn_ext", q, *cache, masks[0], f32(dim**-0.5), f32(0), f32(0))

    def fill(g: Graph) -> None:
        """Causal: the queries are the last tokens of the context."""
        positions = np.arange(context)[None, :] <= np.arange(context - num_queries, context)[:, None]
        g.fill(masks[0], np.where(positions, 0, -np.inf).astype(np.float16))

    if num_queries == 1:
        name = f"decode {kv_type} D={dim} {heads}/{kv_heads} heads, context {context}"
        exact = (lambda g: _exact_decode(g, last, dim, heads, kv_heads)) if kv_type == "f16" else None
        return Case("flash_attn", name, "B/s", "read", repeat * size, build, fill, exact=exact)
    seen = num_queries * context - num_queries * (num_queries - 1) / 2
    name = f"prefill {kv_type} D={dim} {heads}/{kv_heads} heads, {num_queries} of {context}"
    peak = "int8" if kv_type == "q8_0" else "f32"
    return Case("flash_attn", name, "FLOP/s", peak, 4.0 * seen * heads * dim, build, fill)


def _cache(g: Graph, tensor: ctypes.c_void_p, row: int, ne: tuple[int, int, int]) -> ctypes.c_void_p:
    """K or V as the cache holds it: a row for each token with all heads side by side."""
    sizes = tuple(ctypes.c_int64(n) for n in ne)
    strides = (ctypes.c_size_t(row * ne[2]), ctypes.c_size_t(row), ctypes.c_size_t(0))
    return g.view("ggml_view_3d", tensor, *sizes, *strides)


def _exact_decode(
    g: Graph, tensors: list[ctypes.c_void_p], dim: int, heads: int, kv_heads: int
) -> npt.NDArray[np.float64]:
    """One token that sees the whole F16 cache, in double."""
    q = g.values(tensors[0], np.float32).reshape(kv_heads, heads // kv_heads, dim)
    k, v = (g.values(t, np.float16).reshape(-1, kv_heads, dim).swapaxes(0, 1).astype(np.float64) for t in tensors[1:])
    scores = q @ k.swapaxes(1, 2) * dim**-0.5
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    out: npt.NDArray[np.float64] = (weights / weights.sum(axis=2, keepdims=True) @ v).reshape(-1)
    return out


# ---- rows


def _rows(quick: bool) -> Iterator[Case]:
    for n in (1, 512):
        for width in [4096] if quick else [2560, 4096]:
            yield _row_case("rms_norm", "with its weight", width, n, 2, _rms_norm)
        for width in [14336] if quick else [9728, 14336]:
            yield _row_case("swiglu", "split", width, n, 3, _glu("ggml_swiglu_split"))
            yield _row_case("geglu", "split", width, n, 3, _glu("ggml_geglu_split"))
            yield _row_case("silu", "", width, n, 2, _unary("ggml_silu"))
            yield _row_case("gelu", "", width, n, 2, _unary("ggml_gelu"))
        for width in [4096] if quick else [512, 4096, 32768]:
            yield _row_case("soft_max", "with scale", width, n, 2, _soft_max)
        for mode, layout in ((0, "neighbours"), (2, "halves")):
            yield _rope_case(mode, layout, n)


def _row_case(op: str, what: str, width: int, n: int, num_streams: int, one: Callable[[Graph, int, int], None]) -> Case:
    repeat = max(1, (1 << 21) // (width * n))

    def build(g: Graph) -> None:
        for _ in range(min(repeat, 200)):
            one(g, width, n)

    amount = 4.0 * num_streams * width * n * min(repeat, 200)
    name = f"{n} x {width} {what}".rstrip()
    return Case(op, name, "B/s", "", amount, build, tolerance=1e-5)


def _rms_norm(g: Graph, width: int, n: int) -> None:
    normal = g.op("ggml_rms_norm", g.input("f32", width, n), f32(1e-5))
    g.op("ggml_mul", normal, g.input("f32", width))


def _glu(function: str) -> Callable[[Graph, int, int], None]:
    def one(g: Graph, width: int, n: int) -> None:
        g.op(function, g.input("f32", width, n), g.input("f32", width, n))

    return one


def _unary(function: str) -> Callable[[Graph, int, int], None]:
    def one(g: Graph, width: int, n: int) -> None:
        g.op(function, g.input("f32", width, n))

    return one


def _soft_max(g: Graph, width: int, n: int) -> None:
    g.op("ggml_soft_max_ext", g.input("f32", width, n), None, f32(0.125), f32(0))


def _rope_case(mode: int, layout: str, n: int, dim: int = 128, heads: int = 32) -> Case:
    repeat = 1 if n > 1 else 100
    positions: list[ctypes.c_void_p] = []

    def build(g: Graph) -> None:
        positions[:] = [g.input("i32", n)]
        for _ in range(repeat):
            numbers = (f32(10000), f32(1), f32(0), f32(1), f32(32), f32(1))
            x = g.input("f32", dim, heads, n)
            g.op("ggml_rope_ext", x, positions[0], None, dim, mode, 8192, *numbers)

    def fill(g: Graph) -> None:
        g.fill(positions[0], np.arange(100, 100 + n, dtype=np.int32))

    name = f"{n} x {heads} heads D={dim}, {layout}"
    return Case("rope", name, "B/s", "", 8.0 * dim * heads * n * repeat, build, fill, tolerance=1e-5)


# ---- against others than stock, on one thread


def _against_rivals() -> Iterator[Case]:
    n = 1024

    def square(g: Graph) -> None:
        g.op("ggml_mul_mat", g.input("f32", n, n), g.input("f32", n, n))

    name = f"f32 {n}x{n}, {n} columns, 1 thread"
    yield Case("mul_mat", name, "FLOP/s", "f32", 2.0 * n**3, square, threads=1, rival="OpenBLAS")
    yield _scalar_case("soft_max", "with scale", lambda g, x: g.op("ggml_soft_max_ext", x[0], None, f32(0.125), f32(0)))
    yield _scalar_case("rms_norm", "with its weight", _norm_of)
    yield _scalar_case("swiglu", "split", lambda g, x: g.op("ggml_swiglu_split", x[0], x[1]))


def _scalar_case(op: str, what: str, one: Callable[[Graph, list[ctypes.c_void_p]], object]) -> Case:
    """The same two rows again and again, with results that together stay in L2."""
    width, rows, repeat = 4096, 2, 20

    def build(g: Graph) -> None:
        inputs = [g.input("f32", width, rows), g.input("f32", width, rows), g.input("f32", width)]
        for _ in range(repeat):
            one(g, inputs)

    name = f"{rows} x {width} {what}, in cache, 1 thread"
    amount = float(width * rows * repeat)
    return Case(op, name, "values/s", "", amount, build, tolerance=1e-5, threads=1, rival=f"libm {op}")


def _norm_of(g: Graph, x: list[ctypes.c_void_p]) -> None:
    g.op("ggml_mul", g.op("ggml_rms_norm", x[0], f32(1e-5)), x[2])
