"""Every kernel of the loaded library against its definition, on the machine it runs on.

    python -m axion_llm.kernels.self_test [--short] [--without NAME,…] [--done NAME,…]

is the child process that others start, for a kernel may end it: a line of JSON before each kernel (`{"begin": NAME}`)
and one with what was found behind it (`Finding`). Whoever reads that of a process that ended by a signal knows where.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from axion_llm import native
from axion_llm.kernels.cases import Case, Data, cases
from axion_llm.kernels.fusions import Fusion, fusions
from axion_llm.kernels.graph import Graph, Tensor

HUGE = 1e9  # what JSON has instead of infinity
THREADS = 2  # so that the split of the work takes part


@dataclass(frozen=True)
class Finding:
    """One kernel. `error`: the largest, as a part of what is allowed; for a fusion 0, or HUGE: the bits differ."""

    kernel: str
    num_cases: int  # that it took; the others it leaves to upstream on this machine
    error: float
    worst: str = ""  # the case with that error

    @property
    def is_right(self) -> bool:
        return self.error <= 1


def self_test(is_short: bool, without: Iterable[str] = (), done: Iterable[str] = ()) -> Iterator[str | Finding]:
    """The name of each kernel that is on, then what was found of it. The same are on again at the end.

    `without`: not to be touched; `done`: tested before, and right.
    """
    library = native.load()
    names = [kernel.name for kernel in library.kernels()]
    before = {kernel.name for kernel in library.kernels() if kernel.enabled}
    wrong = {name for name in names if name not in before} | set(without)
    tests: list[Case | Fusion] = [*cases(is_short), *fusions(is_short)]
    tests.sort(key=lambda test: names.index(test.kernel) if test.kernel in names else len(names))
    tests.sort(key=lambda test: len(test.needs) > 0)  # the kernels that others need come first
    try:
        for name, group in groupby(tests, key=lambda test: test.kernel):
            if name not in names or name in wrong or name in done:
                continue
            yield name
            found = _test(library, name, [t for t in group if not wrong & {*t.needs}])
            if not found.is_right:
                wrong.add(name)
            yield found
    finally:
        library.enable(before)


def take_out_wrong() -> list[str]:
    """The short form, and what is wrong is off from then on; its names."""
    found = [finding for finding in self_test(is_short=True) if isinstance(finding, Finding)]
    wrong = [finding.kernel for finding in found if not finding.is_right]
    library = native.load()
    library.enable({kernel.name for kernel in library.kernels() if kernel.enabled} - set(wrong))
    return wrong


def _test(library: native.NativeLibrary, name: str, tests: list[Case | Fusion]) -> Finding:
    num_taken, worst, most = 0, "", 0.0
    for test in tests:
        error = _of_case(library, test) if isinstance(test, Case) else _of_fusion(library, test)
        num_taken += error is not None
        if error is not None and (error > most or not worst):
            worst, most = test.what, error
    return Finding(name, num_taken, most, worst)


def _of_case(library: native.NativeLibrary, case: Case) -> float | None:
    """The largest error over what is allowed; None where the kernel leaves the case to upstream."""
    got = _run(library, {case.kernel, *case.needs}, case.kernel, case.inputs, case)
    if got is None:
        return None
    want, got = case.want.reshape(-1), got.astype(np.float64)
    allowed = np.broadcast_to(case.allowed, case.want.shape).reshape(-1)
    with np.errstate(all="ignore"):
        off = np.abs(got - want) / allowed
        same = (got == want.astype(np.float32)) | (np.isnan(got) & np.isnan(want))
    return float(np.where(same, 0, np.minimum(np.nan_to_num(off, nan=HUGE), HUGE)).max())


def _of_fusion(library: native.NativeLibrary, fusion: Fusion) -> float | None:
    # The one that only fetches ahead is counted nowhere: it works where the fusion that it helps does.
    asked = fusion.needs[-1] if fusion.kernel == "fuse_ahead" else fusion.kernel
    got = _run(library, {fusion.kernel, *fusion.needs}, asked, fusion.inputs, fusion)
    want = _run(library, set(fusion.needs), fusion.needs[-1], fusion.inputs, fusion)
    if got is None or want is None:
        return None
    return 0.0 if got.tobytes() == want.tobytes() else HUGE


def _run(
    library: native.NativeLibrary, enabled: set[str], asked: str, inputs: Iterable[Data], test: Case | Fusion
) -> npt.NDArray[np.float32] | None:
    """The result with just these kernels on; None where the one that is asked for computed nothing."""
    with Graph(THREADS) as graph:
        tensors: list[Tensor] = []
        values = []
        for data in inputs:
            type_name, ne, array = data if isinstance(data, tuple) else ("f32", data.shape[::-1], data)
            tensors.append(graph.input(type_name, *ne))
            values.append(array)
        test.build(graph, *tensors)
        graph.allocate()
        for tensor, array in zip(tensors, values, strict=True):
            graph.fill(tensor, array)
        library.enable(enabled)
        before = library.num_calls_of(asked)
        graph.run()
        return graph.result() if library.num_calls_of(asked) > before else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--without", default="")
    parser.add_argument("--done", default="")
    args = parser.parse_args()
    for message in self_test(args.short, args.without.split(","), args.done.split(",")):
        line = {"begin": message} if isinstance(message, str) else asdict(message)
        # The pipe has it even if the next kernel ends this process.
        os.write(sys.stdout.fileno(), (json.dumps(line) + "\n").encode())


if __name__ == "__main__":
    main()
