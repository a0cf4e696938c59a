#!/usr/bin/env python3
"""Cycles on Neoverse V2 of our inner loops and of upstream's counterparts, by llvm-mca, for GCC and clang: a table.

    arm_cycles.py LLAMA_SOURCE_DIR [--json FILE] [--arch ARCH]

Data in L1, no branch misses: what a loop could do at best. A row names a loop by its function and by the instructions
that do its work; of several such loops the one with the most of them counts. GCC 12 and clang 19 where installed.
Exit status 1 when one of ours misses its goal.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mca_attention
import mca_loop

KERNELS = Path(__file__).resolve().parent.parent / "patches" / "ggml-axion"
ARCH = "armv9-a+i8mm+bf16+sve2+fp16+dotprod"
COMPILERS = {"gcc": "aarch64-linux-gnu-", "clang": "clang-19"}

PROBES = """
#include "glu.h"
#include "rms_norm.h"
#include "rope.h"
#include "soft_max.h"
using namespace axion;
#define PROBE extern "C" __attribute__((noinline, flatten))
PROBE float probe_logits(const float * x, float * y, int64_t n) { return soft_max_logits(x, 0.5f, {}, y, 0, n); }
PROBE float probe_exp(float * y, float max, int64_t n) { return soft_max_exp(y, max, 0, n); }
PROBE void probe_swiglu(const float * g, const float * u, float * y, int64_t n) { map_rows(g, u, y, 0, n, swiglu); }
PROBE void probe_geglu(const float * g, const float * u, float * y, int64_t n) { map_rows(g, u, y, 0, n, geglu); }
PROBE void probe_gelu_erf(const float * x, float * y, int64_t n) { map_row(x, y, 0, n, gelu_erf); }
PROBE float probe_squares(const float * x, int64_t n) { return sum_of_squares(x, n); }
PROBE void probe_scale(const float * x, const float * w, float * y, float s, int64_t n) { scale_row(x, w, y, s, 0, n); }
// In place, the estimate would have a load wait for the store that moved its address on.
PROBE void probe_rope(const RopePlan & p, const float * c, const float * x, float * y) { rope_row(p, c, c + 64, x, y); }
"""

# Vectors stored, of four floats; pairs of them count twice.
STORES = r"^(str\s+q|stp\s+q|st1w)"
FMLA = r"^(fmla|fmad|fmls|fmsb)\s"


@dataclass(frozen=True)
class Loop:
    """`amount` units of work are done by `per` matching instructions."""

    source: str  # "probes", "attention", a file of ours, or one of upstream's (with its folder)
    function: str  # part of the mangled name
    pattern: str
    amount: float
    is_shared: bool = False  # `amount` is of a unit that has one such instruction, for loops of any unrolling


@dataclass(frozen=True)
class Row:
    name: str
    unit: str  # "MAC/cycle": more is better; "cycles/…": less is
    goal: float | None
    ours: tuple[Loop, ...]
    theirs: tuple[Loop, ...] = ()

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/cycle")


def tile(columns: int, kind: int) -> tuple[Loop, ...]:
    return (Loop("mul_mat_formats.cpp", f"SumsILi{columns}EE3addILNS_4KindE{kind}E", "^smmla", 32),)


def column(weights: str) -> tuple[Loop, ...]:
    function = f"{weights}10add_column" if "K" in weights else f"column_tileINS_{weights}"
    return (Loop("mul_mat_formats.cpp", function, "^sdot", 16),)


def quants(function: str) -> tuple[Loop, ...]:
    return (Loop("arch/arm/quants.c", "ggml_vec_dot_" + function, "^sdot", 16),)


def repack(function: str, pattern: str, amount: float) -> tuple[Loop, ...]:
    return (Loop("arch/arm/repack.cpp", "ggml_" + function, pattern, amount),)


def floats(function: str, pattern: str, amount: float) -> tuple[Loop, ...]:
    return (Loop("mul_mat_float_formats.cpp", function, pattern, amount),)


def attention(loops: Iterable[tuple[str, str, str, float]]) -> tuple[Loop, ...]:
    return tuple(Loop("attention", function, pattern, share) for _, function, pattern, share in loops)


def elements(function: str, pattern: str) -> tuple[Loop, ...]:
    return (Loop("probes", "probe_" + function, pattern, 4),)


DECODE = (
    *attention(mca_attention.DECODE),
    *(Loop("attention", f, p, per["smmla"], is_shared=True) for _, f, p, per in mca_attention.PACK),
)
SCALAR_FMA = Loop("ops.cpp", "flash_attn_ext_tiled", r"^fmadd\s+s", 1 / 256)  # K.Q and P.V at head size 128
ROWS = [
    Row("int8 tile, 8 columns, plain", "MAC/cycle", 60, tile(8, 0), repack("gemm_q4_0_4x8_q8_0", "^smmla", 32)),
    Row("int8 tile, 8 columns, min", "MAC/cycle", 60, tile(8, 1)),
    Row("int8 tile, 8 columns, two scales", "MAC/cycle", None, tile(8, 2)),
    Row("decode dot q4_0", "MAC/cycle", None, column("11NibblesNeonI10block_q4_0"),
        repack("gemv_q4_0_4x8_q8_0", "^sdot", 16)),
    Row("decode dot q4_1", "MAC/cycle", None, column("11NibblesNeonI10block_q4_1"), quants("q4_1_q8_1")),
    Row("decode dot q8_0", "MAC/cycle", None, column("11Q8_0"), quants("q8_0_q8_0")),
    Row("decode dot iq4_nl", "MAC/cycle", None, column("12Iq4Nl"), repack("gemv_iq4_nl_4x4_q8_0", "^sdot", 16)),
    Row("decode dot q5_0", "MAC/cycle", None, column("11NibblesNeonI10block_q5_0"), quants("q5_0_q8_0")),
    Row("decode dot q4_K", "MAC/cycle", None, column("KNibblesNeonI10block_q4_KLb0EE"), quants("q4_K_q8_K")),
    Row("decode dot q6_K", "MAC/cycle", None, column("Q6_KWeights"), quants("q6_K_q8_K")),
    Row("F32 tile, 8 columns", "MAC/cycle", 15, floats("axion8tile_8xwILi8E", "^fmla", 4),
        (Loop("llamafile/sgemm.cpp", "Float32x4_tS1_fffE9gemm_blocILi4ELi6E", "^fmla", 4),)),
    Row("BF16 tile, 8 columns (BFMMLA)", "MAC/cycle", None, floats("mmla_tile_8xwILi8E", "^bfmmla", 16)),
    Row("attention prefill q8_0, D=128", "cycles/pair", 24,
        attention(mca_attention.PREFILL), (SCALAR_FMA,)),
    Row("attention prefill F16, D=128", "cycles/pair", 24, attention(mca_attention.F16), (SCALAR_FMA,)),
    Row("attention decode q8_0, 4 heads of 128", "cycles/row", 110, DECODE),
    Row("softmax: scale and maximum", "cycles/element", None, elements("logits", r"^fmax\s")),
    Row("softmax: exp and sum", "cycles/element", 1.35, elements("exp", r"^fmax\s"),
        (Loop("vec.cpp", "ggml_vec_soft_max_f32", STORES, 4),)),
    Row("SwiGLU", "cycles/element", 2.1, elements("swiglu", r"^fdiv\s"),
        (Loop("vec.cpp", "ggml_vec_swiglu_f32", STORES, 4),)),
    Row("GeGLU", "cycles/element", None, elements("geglu", r"^fdiv\s")),
    Row("GELU by erf", "cycles/element", None, elements("gelu_erf", r"^fmin\s")),
    Row("RMSNorm, both passes", "cycles/element", 0.45, elements("squares", FMLA) + elements("scale", STORES),
        (Loop("ops.cpp", "rms_norm", r"^(fadd\s+d|fadda)", 1),)),
    Row("RoPE, NeoX pairs", "cycles/element", None, elements("rope", FMLA)),
]  # fmt: skip


class Objects:
    """Compiles each source once."""

    def __init__(self, compiler: str, arch: str, sources: Path, folder: Path) -> None:
        self.compiler, self.arch, self.sources, self.folder = compiler, arch, sources, folder
        self.cpu = sources / "ggml" / "src" / "ggml-cpu"

    def command(self, is_c: bool) -> list[str]:
        standard = [] if is_c else ["-std=c++17"]
        if self.compiler == "gcc":
            return ["aarch64-linux-gnu-gcc" if is_c else "aarch64-linux-gnu-g++", *standard]
        return ["clang-19" if is_c else "clang++-19", "--target=aarch64-linux-gnu", *standard]

    def path(self, source: str) -> Path:
        return self.folder / f"{source.replace('/', '_')}.o"

    def text_of(self, source: str) -> Path:
        if source in ("probes", "attention"):
            path = self.folder / f"{source}.cpp"
            path.write_text(PROBES if source == "probes" else mca_attention.PROBES)
            return path
        return KERNELS / source if (KERNELS / source).exists() and source != "ops.cpp" else self.cpu / source

    def compile(self, source: str) -> None:
        path = self.text_of(source)
        ccache = [shutil.which("ccache")] if shutil.which("ccache") else []
        command = [*filter(None, ccache), *self.command(path.suffix == ".c"), "-O3", "-DNDEBUG", "-D_GNU_SOURCE", "-w"]
        command += [f"-march={self.arch}", f"-I{KERNELS}", f"-I{self.sources / 'ggml/include'}"]
        command += [f"-I{self.sources / 'ggml/src'}", f"-I{self.cpu}", "-c", str(path), "-o", str(self.path(source))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"arm_cycles: {' '.join(command)}\n{done.stderr[:2000]}")


def work_of(text: str, pattern: str) -> int:
    """How often an instruction does the work it is recognised by: twice for a pair of stores or loads, or of halves."""
    return (2 if text.startswith(("stp", "ldp", "st1h")) else 1) if re.search(pattern, text) else 0


def measure(loop: Loop, path: Path) -> tuple[float, float] | None:
    """(units of work, cycles) of an iteration of the busiest loop; None when the compiler made another of it."""
    best: tuple[int, list[str]] = (0, [])  # of two with as much, the shorter: the other one leads out of the loop
    body = mca_loop.disassemble(str(path), loop.function)
    for first, last in mca_loop.innermost_loops(body):
        texts = [text for _, text in body[first : last + 1]]
        work = sum(work_of(text, loop.pattern) for text in texts)
        best = max(best, (work, texts), key=lambda b: (b[0], -len(b[1])))
    if not best[0]:
        return None
    cycles = mca_loop.cycles(best[1])
    return best[0] * loop.amount, cycles / best[0] if loop.is_shared else cycles


def value(row: Row, loops: tuple[Loop, ...], objects: Objects) -> float | None:
    if not loops:
        return None
    total = 0.0
    for loop in loops:
        measured = measure(loop, objects.path(loop.source))
        if measured is None:
            return None
        work, cycles = measured
        if loop.source == "attention":  # there the share of an iteration is given, whatever it holds
            total += cycles * loop.amount
        else:
            total += work / cycles if row.is_rate else cycles / work
    return round(total, 2)


def estimate(sources: Path, arch: str, rows: Iterable[Row] = ROWS) -> list[dict[str, object]]:
    results: list[dict[str, object]] = [
        {"name": row.name, "unit": row.unit, "goal": row.goal, "is_rate": row.is_rate} for row in rows
    ]
    for compiler in COMPILERS:
        if not shutil.which({"gcc": "aarch64-linux-gnu-g++", "clang": "clang++-19"}[compiler]):
            continue
        with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = Objects(compiler, arch, sources, Path(folder))
            list(pool.map(objects.compile, {loop.source for row in rows for loop in (*row.ours, *row.theirs)}))
            ours = pool.map(value, rows, [row.ours for row in rows], [objects] * len(results))
            theirs = pool.map(value, rows, [row.theirs for row in rows], [objects] * len(results))
            for result, a, b in zip(results, ours, theirs, strict=True):
                result[compiler] = {"ours": a, "upstream": b}
    return results


def print_table(results: list[dict[str, object]]) -> None:
    names = [c for c in COMPILERS if c in results[0]]
    print("| Neoverse V2 by llvm-mca | unit | goal |" + "".join(f" {n}: ours | {n}: upstream |" for n in names))
    print("|---|---|---|" + "---|---|" * len(names))
    for r in results:
        goal = "" if r["goal"] is None else f"{'>=' if r['is_rate'] else '<='} {r['goal']}"
        cells = [r["name"], r["unit"], goal]
        for n in names:
            pair = r[n]
            assert isinstance(pair, dict)
            cells += ["" if pair[k] is None else f"{pair[k]:.2f}" for k in ("ours", "upstream")]
        print("| " + " | ".join(map(str, cells)) + " |")


def shortfalls(results: list[dict[str, object]]) -> list[str]:
    """Our loops that miss their goals, or that were not found at all."""
    found = []
    for r in results:
        for compiler in (c for c in COMPILERS if c in r):
            ours, goal = r[compiler]["ours"], r["goal"]  # type: ignore[index]
            if ours is None or (goal is not None and (ours < goal if r["is_rate"] else ours > goal)):
                found.append(f"{r['name']}, {compiler}: {ours} {r['unit']}, goal {goal}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--arch", default=ARCH)
    args = parser.parse_args()
    results = estimate(args.sources, args.arch)
    print_table(results)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    short = shortfalls(results)
    print(*(f"arm_cycles: {text}" for text in short), sep="\n", end="", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
