"""Graphs in which each fusion has something to fuse: with it and without it every bit must be the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from axion_llm.kernels.cases import Data, f32, random
from axion_llm.kernels.graph import Graph, Tensor, quantized

INPUTS, ROWS = 512, 176


@dataclass(frozen=True)
class Fusion:
    """`needs`: the kernels that compute the nodes one by one."""

    kernel: str
    what: str
    needs: tuple[str, ...]
    inputs: list[Data]
    build: Callable[..., object]


def fusions(is_short: bool) -> Iterator[Fusion]:
    rng = np.random.default_rng(2)
    for columns in (1, 3) if is_short else (1, 3, 9, 70):
        x, norm = random(rng, columns, INPUTS), random(rng, 1, INPUTS)
        weights: list[Data] = [
            ("q4_0", (INPUTS, ROWS), quantized("q4_0", random(rng, ROWS, INPUTS))[0]) for _ in range(3)
        ]
        bias, residual = random(rng, 1, ROWS), random(rng, columns, ROWS)
        heads, positions = random(rng, columns, 4, 64), np.arange(columns, dtype=np.int32)
        turned: list[Data] = [heads, heads * 2, ("i32", (columns,), positions)]
        what = f"{columns} columns"
        yield Fusion("fuse_norm", what, ("rms_norm", "mul_mat"), [x, norm, *weights], _norm)
        yield Fusion("fuse_qkv", what, ("mul_mat",), [x, norm, *weights], _products)
        yield Fusion("fuse_glu", what, ("mul_mat", "glu"), [x, norm, *weights], _gate)
        yield Fusion("fuse_add", what, ("mul_mat",), [x, norm, *weights, bias, residual], _add)
        yield Fusion("fuse_ahead", what, ("mul_mat", "fuse_add"), [x, norm, *weights, bias, residual], _two_layers)
        yield Fusion("fuse_rope", what, ("rope",), turned, _ropes)


def _norm(g: Graph, x: Tensor, norm: Tensor, *weights: Tensor) -> None:
    g.op("ggml_mul_mat", weights[0], g.op("ggml_mul", g.op("ggml_rms_norm", x, f32(1e-5)), norm))


def _products(g: Graph, x: Tensor, _: Tensor, *weights: Tensor) -> None:
    products = [g.op("ggml_mul_mat", w, x) for w in weights]
    g.op("ggml_concat", g.op("ggml_concat", products[0], products[1], 1), products[2], 1)


def _gate(g: Graph, x: Tensor, _: Tensor, *weights: Tensor) -> None:
    g.op("ggml_swiglu_split", g.op("ggml_mul_mat", weights[0], x), g.op("ggml_mul_mat", weights[1], x))


def _add(g: Graph, x: Tensor, _: Tensor, *others: Tensor) -> Tensor:
    *weights, bias, residual = others
    return g.op("ggml_add", g.op("ggml_add", g.op("ggml_mul_mat", weights[0], x), bias), residual)


def _two_layers(g: Graph, x: Tensor, norm: Tensor, *others: Tensor) -> None:
    first = _add(g, x, norm, *others)
    *weights, bias, residual = others
    second = g.op("ggml_add", g.op("ggml_add", g.op("ggml_mul_mat", weights[1], x), bias), residual)
    g.op("ggml_concat", first, second, 1)


def _ropes(g: Graph, q: Tensor, k: Tensor, positions: Tensor) -> None:
    numbers = [f32(v) for v in (10000, 1, 0, 1, 32, 1)]
    turned = [g.op("ggml_rope_ext", t, positions, None, 64, 2, 4096, *numbers) for t in (q, k)]
    g.op("ggml_concat", *turned, 1)
