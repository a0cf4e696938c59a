#!/usr/bin/env python3
"""Estimated cycles of our AMX tiles on Sapphire Rapids: nothing of it was measured on hardware.

    amx_cycles.py LLAMA_SOURCE_DIR

llvm-mca-19 knows AMX' instructions by name only (100 cycles each, no unit of their own), and its Sapphire Rapids has
one unit for 512-bit arithmetic where the machine has two. So the inner loop of each tile is counted by hand, a block of
32 values of 16 rows by 16 columns, and the slowest counts:
  arithmetic  512-bit instructions, two a cycle          loads   of 64 bytes two a cycle, with narrower ones three
  tile unit   16 a product of 16 rows, however full K    stores  one of 64 bytes a cycle; a tile is as many as its rows
Beside it llvm-mca with the ports of Skylake-X (two 512-bit units, but two loads a cycle of any width) and a wider front
end, a tile's rows given as vector loads and stores: the pessimistic end. Data in L1, no branch misses; a product's 52
cycles are hidden by its neighbours. The share is of TDPBUSD's peak, 16 x 16 x 64 products in 16 cycles.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "patches" / "ggml-axion"
COMPILERS = ["g++-12", "clang++-19"]
FLAGS = ["-std=c++17", "-O3", "-march=sapphirerapids", "-Wno-psabi", "-c", "-x", "c++", "-"]
ITERATIONS = 200
PRODUCT_CYCLES = 16
PEAK = 1024  # products of int8 in a cycle

PROBES = """
#include "mul_mat_amx.h"
using namespace axion;
template <Kind kind> constexpr WideTile tile = wide_tile<amx::HardwareTiles, kind>;
extern const WideTile tiles[];
const WideTile tiles[] = { tile<Kind::zero_point>, tile<Kind::with_min>, tile<Kind::two_scales> };
"""


@dataclass(frozen=True)
class Loop:
    function: str  # a part of the mangled name
    name: str
    tile_rows: dict[int, tuple[int, str]]  # of a register: rows, and a vector register as wide as they are
    products: int  # multiply-adds that one product of tiles is worth


WHOLE = {0: (16, "z"), 1: (16, "z"), 2: (16, "y"), 3: (16, "y"), 4: (8, "z"), 5: (8, "z"), 6: (16, "x"), 7: (4, "z")}
LOOPS = [
    Loop("wide_tile.*KindE0E", "int8, one scale (q4_0, q5_0, q8_0, iq4_nl)", WHOLE, 16 * 16 * 32),
    Loop("wide_tile.*KindE1E", "int8, scale and min (q4_1, q5_1, q4_K, q5_K)", WHOLE, 16 * 16 * 32),
    Loop("wide_tile.*KindE2E", "int8, two scales (q6_K)", WHOLE, 16 * 16 * 16),
]


def disassemble(path: Path, function: str) -> list[tuple[int, str]]:
    command = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    body, is_inside = [], False
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        if re.match(r"[0-9a-f]+ <", line):
            is_inside = bool(re.search(function, line))
        elif is_inside and (found := re.match(r"\s*([0-9a-f]+):\s+(.*)", line)):
            body.append((int(found[1], 16), found[2].split("#")[0].strip()))
    return body


def product_loop(body: list[tuple[int, str]]) -> list[str]:
    """The shortest way back over a product of tiles and what the vectors do with it."""
    index = {address: i for i, (address, _) in enumerate(body)}
    loops = []
    for i, (_, text) in enumerate(body):
        found = re.match(r"j\w+\s+([0-9a-f]+)", text)
        if found and (start := index.get(int(found[1], 16), i)) < i:
            texts = [t for _, t in body[start : i + 1]]
            if any(t.startswith("tdp") for t in texts):
                loops.append(texts)
    return min(loops, key=len)


def as_vectors(loop: Loop, text: str) -> list[str]:
    """What llvm-mca is given for an instruction."""
    if text.startswith(("tilezero", "j")):
        return ["nop"]
    if text.startswith("tdp"):
        return ["vpermd %zmm31, %zmm31, %zmm31"]  # one micro-operation of port 5
    if found := re.match(r"tileloadd\s+.*%tmm(\d)$", text):
        rows, kind = loop.tile_rows[int(found[1])]
        return [f"vmovups {64 * i}(%rsp), %{kind}mm31" for i in range(rows)]
    if found := re.match(r"tilestored\s+%tmm(\d)", text):
        return [f"vmovups %zmm30, {64 * i}(%rsp)" for i in range(loop.tile_rows[int(found[1])][0])]
    return [text]


def mca(instructions: list[str]) -> float:
    command = [
        "llvm-mca-19",
        "-mcpu=skylake-avx512",
        "-dispatch=9",
        "-lqueue=192",
        "-squeue=114",
        f"-iterations={ITERATIONS}",
        "-noalias",
        "-",
    ]
    done = subprocess.run(command, input="\n".join(instructions), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[:500])
    return int(re.findall(r"Total Cycles:\s+(\d+)", done.stdout)[0]) / ITERATIONS


def ports(loop: Loop, texts: list[str]) -> dict[str, float]:
    """Cycles that each kind of work takes by itself."""
    lines = [line for text in texts for line in as_vectors(loop, text)]
    arithmetic = sum(bool(re.match(r"v(mul|fn?m|cvt|add|sub|p?sub|pand|psll)\w*\s.*%zmm", line)) for line in lines)
    loads = [line for line in lines if re.match(r"v\w+\s+[^%,]*\(", line)]
    full = sum("zmm" in line and "{1to" not in line for line in loads)
    stores = sum(bool(re.match(r"vmov\w+\s+%zmm\d+,", line)) and line.endswith(")") for line in lines)
    unit = PRODUCT_CYCLES * sum(text.startswith("tdp") for text in texts)
    return {"arithmetic": arithmetic / 2, "loads": max(full / 2, len(loads) / 3), "stores": stores, "tile unit": unit}


def estimate(loop: Loop, texts: list[str]) -> str:
    work = loop.products * sum(text.startswith("tdp") for text in texts)
    per_block = work / (16 * 16 * 32)
    spilled = sum(bool(re.match(r"vmov\w+\s+%zmm\d+,.*\(%r[sb]p", text)) for text in texts)
    found = ports(loop, texts)
    ours, theirs = max(found.values()), mca([line for text in texts for line in as_vectors(loop, text)])
    theirs = max(theirs, found["tile unit"], found["stores"])
    parts = [f"{n / per_block:.1f}" for n in (*found.values(), ours, theirs)]
    return " | ".join([*parts, *(f"{work / n / PEAK:.0%}" for n in (ours, theirs)), str(spilled)])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    ggml = Path(sys.argv[1]) / "ggml"
    include = [f"-I{path}" for path in (KERNELS, ggml / "include", ggml / "src", ggml / "src" / "ggml-cpu")]
    print(
        "| tile | compiler | arithmetic | loads | stores | tile unit | ports | llvm-mca | of peak | llvm-mca | spills |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for compiler in filter(shutil.which, COMPILERS):
            target = Path(folder) / "probes.o"
            subprocess.run([compiler, *FLAGS, *include, "-o", str(target)], input=PROBES, text=True, check=True)
            for loop in LOOPS:
                texts = product_loop(disassemble(target, loop.function))
                print(f"| {loop.name} | {compiler} | {estimate(loop, texts)} |")


if __name__ == "__main__":
    main()
