#!/usr/bin/env python3
"""Estimate cycles of a function's innermost loops on Neoverse V2 with llvm-mca: data in L1, no branch misses.

    mca_loop.py OBJECT.o FUNCTION [REGEX [MACS]]

FUNCTION is a part of the mangled name. One line per innermost loop with an instruction that matches REGEX: its cycles
per iteration and, with MACS multiply-adds per matching instruction, multiply-adds per cycle.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

ITERATIONS = 500
BRANCH = re.compile(r"(?:b\.\w+|cbn?z|tbn?z|b)\s+(?:.*,\s*)?([0-9a-f]+)$")


def tool(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    sys.exit(f"none of these is installed: {', '.join(names)}")


def disassemble(path: str, function: str) -> list[tuple[int, str]]:
    command = [tool("aarch64-linux-gnu-objdump", "objdump"), "-d", "--no-show-raw-insn", path]
    body, is_inside = [], False
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        if re.match(r"[0-9a-f]+ <", line):
            is_inside = function in line
        elif is_inside and (found := re.match(r"\s*([0-9a-f]+):\s+(.*)", line)):
            body.append((int(found[1], 16), re.sub(r"\s*(//.*|<.*>.*)$", "", found[2]).strip()))
    return body


def innermost_loops(body: list[tuple[int, str]]) -> list[tuple[int, int]]:
    index = {address: i for i, (address, _) in enumerate(body)}
    loops = []
    for i, (address, text) in enumerate(body):
        found = BRANCH.match(text)
        if found and (target := int(found[1], 16)) <= address and target in index:
            loops.append((index[target], i))
    return [a for a in loops if not any(b != a and b[0] >= a[0] and b[1] <= a[1] for b in loops)]


def cycles(instructions: list[str]) -> float:
    code = "\n".join("nop" if re.match(r"(b\.|b\s|cbn?z|tbn?z|bl\s)", t) else t for t in instructions)
    command = [
        tool("llvm-mca-19", "llvm-mca"),
        "-mtriple=aarch64",
        "-mcpu=neoverse-v2",
        f"-iterations={ITERATIONS}",
        "-",
    ]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[:300])
    return int(re.findall(r"Total Cycles:\s+(\d+)", done.stdout)[0]) / ITERATIONS


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    body = disassemble(sys.argv[1], sys.argv[2])
    if not body:
        sys.exit(f"no function matching {sys.argv[2]!r} in {sys.argv[1]}")
    pattern = sys.argv[3] if len(sys.argv) > 3 else "."
    macs = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    for first, last in innermost_loops(body):
        texts = [text for _, text in body[first : last + 1]]
        if hits := sum(bool(re.search(pattern, text)) for text in texts):
            n = cycles(texts)
            rate = f", {hits * macs / n:.1f} MAC/cycle" if macs else ""
            print(f"{sys.argv[2]}: {len(texts)} instructions, {hits} matching, {n:.1f} cycles{rate}")


if __name__ == "__main__":
    main()
