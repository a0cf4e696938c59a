#!/usr/bin/env python3
"""Estimate element-wise kernels on Neoverse V2 with llvm-mca: cycles per element of their inner loops, data in L1.

mca_elementwise.py COMPILER ARCH      e.g. aarch64-linux-gnu-g++ armv9-a+i8mm+bf16+sve2
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from mca_attention import HEADERS, busiest

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
// In place, the estimate would have a load wait for the store that moved its address on.
PROBE void probe_rope(const RopePlan & p, const float * c, const float * x, float * y) { rope_row(p, c, c + 64, x, y); }
"""

# What a loop is recognised by: an instruction of which there is one for every four elements.
LOOPS = [
    ("softmax: scale and maximum", "probe_logits", r"fmax\s"),
    ("softmax: exp and sum", "probe_exp", r"fmax\s"),
    ("SwiGLU", "probe_swiglu", r"fdiv\s"),
    ("GeGLU", "probe_geglu", r"fdiv\s"),
    ("GELU by erf", "probe_gelu_erf", r"fmin\s"),
    ("RMSNorm: sum of squares", "probe_squares", r"fmla\s|fmad\s"),
    ("RoPE, NeoX pairs", "probe_rope", r"fmla\s|fmad\s|fmls\s|fmsb\s"),
]


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    compiler, arch = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        source, object_file = Path(folder, "probe.cpp"), str(Path(folder, "probe.o"))
        source.write_text(PROBES)
        command = [*compiler.split(), "-std=c++17", "-O3", f"-march={arch}", "-Wno-psabi", f"-I{HEADERS}", "-c"]
        subprocess.run([*command, str(source), "-o", object_file], check=True)
        for label, function, pattern in LOOPS:
            cycles, hits = busiest(object_file, function, pattern)
            print(f"{label}: {cycles / hits / 4:.2f} cycles an element")


if __name__ == "__main__":
    main()
