"""What `bench kernels` measures beside stock: NumPy's OpenBLAS, and scalar code with the C library's functions."""

from __future__ import annotations

import ctypes
import re
import time
from pathlib import Path

import numpy as np

from axion_llm import native

SECONDS = 0.03


def rate(name: str, library: native.NativeLibrary) -> float | None:
    """Per second, on one thread; None where this machine does not have it."""
    if name == "OpenBLAS":
        return _openblas()
    return library.peak(name.removeprefix("libm "), 1, SECONDS)


def _openblas(n: int = 1024) -> float | None:
    """FLOP per second of NumPy's product of two FP32 squares."""
    a, b = np.random.default_rng(0).standard_normal((2, n, n), dtype=np.float32)
    a @ b  # NumPy opens the library at the first product
    if not _limit_openblas():
        return None
    started = time.perf_counter()
    a @ b
    return 2.0 * n**3 / (time.perf_counter() - started)


def _limit_openblas() -> bool:
    """One thread from now on; False when NumPy computes with something else."""
    mapped = Path("/proc/self/maps").read_text()
    for path in set(re.findall(r"\S+openblas\S*\.so\S*", mapped)):
        blas = ctypes.CDLL(path)
        for prefix in ("scipy_", ""):
            for suffix in ("64_", ""):
                if hasattr(blas, f"{prefix}openblas_set_num_threads{suffix}"):
                    getattr(blas, f"{prefix}openblas_set_num_threads{suffix}")(1)
                    return True
    return False
