#!/usr/bin/env python3
"""Compare two greedy decodes (lines "token logit lead"): equal tokens, or a first difference that was a near tie.

    compare_greedy.py HERE THERE

Machines add in different orders, so that logits differ in their last digits: a token may differ only where the better
one led by less than twice what the logits before it have differed by at most, and no less than LEAST is allowed.
"""

from __future__ import annotations

import sys
from pathlib import Path

LEAST = 0.05


def read(path: str) -> list[tuple[int, float, float]]:
    rows = [line.split() for line in Path(path).read_text().splitlines()]
    return [(int(token), float(logit), float(lead)) for token, logit, lead in rows]


def main() -> int:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    here, there = read(sys.argv[1]), read(sys.argv[2])
    if not here or len(here) != len(there):
        sys.exit(f"compare_greedy: {len(here)} and {len(there)} tokens")
    worst = 0.0
    for i, (a, b) in enumerate(zip(here, there, strict=True)):
        if a[0] != b[0]:
            is_tie = max(a[2], b[2]) <= max(LEAST, 2 * worst)
            print(
                f"{i} equal tokens, logits within {worst:.5f}; then {a} and {b}: {'a tie' if is_tie else 'DIFFERENT'}"
            )
            return 0 if is_tie else 1
        worst = max(worst, abs(a[1] - b[1]))
    print(f"{len(here)} equal tokens, logits within {worst:.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
