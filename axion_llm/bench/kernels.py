"""Every operation that our kernels take, ours and stock in turn in one process, as shares of the machine's peak."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from axion_llm import native
from axion_llm.bench import rivals
from axion_llm.bench.cases import Case, all_cases
from axion_llm.kernels.graph import Graph

LONG = 0.05  # seconds a side and round
MOST_RUNS = 25


@dataclass(frozen=True)
class KernelRow:
    """Medians over the rounds. Rates are in `unit`; `share` is ours of the peak, None where no peak is known."""

    op: str
    case: str
    kernels: str  # which of ours computed it
    unit: str
    ours: float
    stock: float
    ratio: float
    peak: str
    share: float | None
    difference: float  # between ours and stock: squared, as a part of stock's squared values
    agrees: bool  # or ours is the one that is right
    errors: tuple[float, float] | None  # where they do not: ours and stock against the exact result, squared likewise
    rival: str = ""  # somebody else who was measured in turn with the two
    to_rival: float | None = None  # ours as a multiple of that


@dataclass(frozen=True)
class Report:
    isa: str
    threads: int
    peaks: dict[str, float]  # by kind, all threads together, the best seen
    rows: list[KernelRow]
    not_taken: list[str]  # cases that fall through to upstream


def select(op: str | None, text: str | None, quick: bool) -> list[Case]:
    """Cases of one operation, or whose line contains `text`."""
    cases = [c for c in all_cases(quick) if op is None or c.op in op.split(",")]
    return [c for c in cases if text is None or text in f"{c.op} {c.name}"]


def measure(
    cases: Iterable[Case], threads: int, rounds: int, on_case: Callable[[Case, KernelRow | None], None]
) -> Report:
    """`on_case` hears of every case when it is done, with None when no kernel of ours takes it."""
    library = native.load()
    peaks = {kind: library.peak(kind, threads) for kind in native.PEAKS + native.TILES}
    names = {kernel.name for kernel in library.kernels() if kernel.enabled}
    cases = [replace(case, peak=_peak_here(case, peaks, "amx" in names)) for case in cases]
    rows, not_taken = [], []
    try:
        for case in cases:
            row = _measure(library, names, case, threads, rounds, peaks)
            if row:
                rows.append(row)
            else:
                not_taken.append(f"{case.op} {case.name}")
            on_case(case, row)
    finally:
        library.enable(names)
    return Report(library.isa, threads, peaks, rows, not_taken)


def _peak_here(case: Case, peaks: dict[str, float], has_tiles: bool) -> str:
    """What bounds a case on this machine: AMX' tiles where it has them on, FP32 where it has no BF16 dots."""
    tiles = f"amx_{case.peak}"
    if case.fills_tiles and has_tiles and peaks.get(tiles):
        return tiles
    return "f32" if case.peak == "bf16" and not peaks["bf16"] else case.peak


def _measure(
    library: native.NativeLibrary,
    names: set[str],
    case: Case,
    threads: int,
    rounds: int,
    peaks: dict[str, float],
) -> KernelRow | None:
    peak_threads, threads = threads, case.threads or threads
    with Graph(threads) as graph:
        case.build(graph)
        graph.allocate(np.random.default_rng(0))
        case.fill(graph)
        library.enable(names)
        before = {k.name: k.calls for k in library.kernels()}
        graph.run()
        taken_by = [k.name for k in library.kernels() if k.calls > before[k.name]]
        if not taken_by:
            return None
        ours = graph.result()
        library.enable(set())
        graph.run()
        stock = graph.result()
        difference, errors = _relative(ours, stock), None
        if difference > case.tolerance and case.exact:
            exact = case.exact(graph)
            errors = _relative(ours, exact), _relative(stock, exact)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        # The peak and the rival, taken in turn with the sides: the cores may be shared, or change their clock.
        around: list[float] = []
        others: list[float] = []
        for _ in range(rounds):
            if case.peak:
                around.append(library.peak(case.peak, threads, 0.03))
            if case.rival and (other := rivals.rate(case.rival, library)):
                others.append(other)
            for is_on, found in seconds.items():
                library.enable(names if is_on else set())
                found += _timed(graph)
    on, off = (case.amount / statistics.median(found) for found in seconds.values())
    share = on / statistics.median(around) if around else None
    if around and threads == peak_threads:
        peaks[case.peak] = max(peaks[case.peak], *around)
    agrees = (errors[0] if errors else difference) <= case.tolerance
    kernels = "+".join(taken_by)
    to_rival = on / statistics.median(others) if others else None
    return KernelRow(
        case.op,
        case.name,
        kernels,
        case.unit,
        on,
        off,
        on / off,
        case.peak,
        share,
        difference,
        agrees,
        errors,
        case.rival if others else "",
        to_rival,
    )


def _timed(graph: Graph) -> list[float]:
    """Seconds of some runs. The first does not count where it is short: it finds other data in the caches, and its
    threads may wake on one core until the kernel moves them apart."""
    first = graph.run()
    if first > LONG:
        return [first]
    return [graph.run() for _ in range(min(MOST_RUNS, 1 + int(LONG / first)))]


def _relative(values: npt.NDArray[np.float32], to: npt.NDArray[Any]) -> float:
    """The squared difference as a part of the squared values."""
    return float(np.square(values - to, dtype=np.float64).sum() / np.square(to, dtype=np.float64).sum())
