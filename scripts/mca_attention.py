#!/usr/bin/env python3
"""Estimate flash attention's cycles on Neoverse V2 with llvm-mca: per (query, position) pair, and per position of a
decode step, at head size 128, from the inner loops of the tiles; data in L1.

    mca_attention.py COMPILER ARCH      e.g. aarch64-linux-gnu-g++ armv9-a+i8mm+bf16+sve2
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import mca_loop

HEADERS = Path(__file__).resolve().parent.parent / "patches" / "ggml-axion"
HEAD = 128
PROBES = """
#include "flash_attn_block.h"
using namespace axion;
using namespace axion::fa;
#define PROBE extern "C" __attribute__((noinline, flatten))
PROBE float probe_exp(float * x, int n, float max) { return exponentiate(x, n, max); }
PROBE float probe_max(const float * x, int n) { return maximum(x, n); }
PROBE void probe_write(const float * w, const float * s, const Weights & to, int end) {
    machine::write_weights(w, s, to, 0, 0, 0, end);
}
PROBE void probe_scales(const char * const * rows, float * to) { unpack_scales(rows, 256, 4, to); }
PROBE void probe_pack_k(const char * const * rows, char * to, float * s) { machine::pack_k_q8(rows, 256, 128, to, s); }
PROBE void probe_pack_v(const char * const * rows, char * to, float * s) { machine::pack_v_q8(rows, 256, 128, to, s); }
PROBE void probe_tiles(const QueryQ8 & q, int n, const void * k, const float * ks, int end, float * s,
                       const Weights & w, const float * u, float * const * out) {
    machine::scores_q8(q, n, k, ks, 0, end, s);
    machine::values_q8(w, n, k, 128, 0, end, u, out);
}
PROBE void probe_f16(const float * x, int n, const float * k, int end, float * s, const Widened & v,
                     float * const * out) {
    scores_f16(x, 128, n, k, 0, end, s);
    values_f16(s, n, v, 128, 0, end, out);
}
"""

# What a loop is recognised by, and how many of its iterations one unit takes: a unit is a (query, position) pair of a
# prefill in groups of six rows, or a position of a decode step with four heads. Both int8 tiles do 48 pairs (32 in
# decode) an iteration, of 32 values of K or eight of V.
PREFILL = [
    ("K.Q q8_0", "scores_q8_tileILi3", r"sdot|smmla", 4 / 48),
    ("P.V q8_0", "values_q8_tileILi3", r"sdot|usmmla", 16 / 48),
    ("weights to int8", "probe_write", r"fmla", 4 / 16),
    ("exp", "probe_exp", r"fmla|fmul", 1 / 32),
    ("maximum", "probe_max", r"fmax|fcmgt", 1 / 32),
]
DECODE = [
    ("K.Q q8_0", "scores_q8_tileILi2", r"sdot|smmla", 4 * 4 / 32),
    ("P.V q8_0", "values_q8_tileILi2", r"sdot|usmmla", 4 * 16 / 32),
    *((label, function, pattern, 4 * share) for label, function, pattern, share in PREFILL[2:]),
]
# What a position takes of matching instructions, whatever the compiler unrolls.
PACK = [
    ("pack K", "probe_pack_k", r"zip|mov\s+v\d+\.d", {"smmla": 8, "sdot": 16}),
    ("pack V", "probe_pack_v", r"zip|mov\s+v\d+\.d", {"smmla": 24, "sdot": 16}),
    ("gather scales", "probe_scales", r"stu?rh|str\s+h|st1h", {"smmla": 8, "sdot": 8}),
]
F16 = [
    ("K.Q F16", "scores_f16_tileILi6ELi4", r"fmla", 128 / 96),
    ("P.V F16", "values_f16_tileILi6ELi4", r"fmla", 8 / 6),
    *PREFILL[3:],
]


def busiest(path: str, function: str, pattern: str) -> tuple[float, int]:
    """Cycles of the loop with the most matching instructions, and how many those are."""
    best: tuple[float, int] = (0.0, 0)
    body = mca_loop.disassemble(path, function)
    for first, last in mca_loop.innermost_loops(body):
        texts = [text for _, text in body[first : last + 1]]
        if (hits := sum(bool(re.search(pattern, text)) for text in texts)) > best[1]:
            best = (mca_loop.cycles(texts), hits)
    if not best[1]:
        sys.exit(f"no loop of {function} has {pattern!r}")
    return best


def table(path: str, title: str, rows: list[tuple[str, str, str, float]]) -> None:
    parts = [(label, busiest(path, function, pattern)[0] * share) for label, function, pattern, share in rows]
    print(f"{title}: {sum(c for _, c in parts):.1f} cycles = " + " + ".join(f"{c:.1f} {label}" for label, c in parts))


def pack_shares(path: str, tile: str) -> list[tuple[str, str, str, float]]:
    rows = []
    for label, function, pattern, per_position in PACK:
        hits = busiest(path, function, pattern)[1]
        if any(text.startswith("st1h") for _, text in mca_loop.disassemble(path, function)):
            hits *= 2  # SVE: two scales at once
        rows.append((label, function, pattern, per_position[tile] / hits))
    return rows


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    compiler, arch = sys.argv[1:]
    tile = "smmla" if "i8mm" in arch else "sdot"
    with tempfile.TemporaryDirectory() as folder:
        source, object_file = Path(folder, "probe.cpp"), str(Path(folder, "probe.o"))
        source.write_text(PROBES)
        command = [*compiler.split(), "-std=c++17", "-O3", f"-march={arch}", "-Wno-psabi", f"-I{HEADERS}", "-c"]
        subprocess.run([*command, str(source), "-o", object_file], check=True)
        table(object_file, "prefill q8_0, a pair", PREFILL)
        table(object_file, "prefill F16, a pair", F16)
        table(object_file, "decode q8_0, a position", DECODE + pack_shares(object_file, tile))


if __name__ == "__main__":
    main()
