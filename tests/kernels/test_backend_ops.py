"""Upstream's test-backend-ops with our kernels on: what scripts/backend-ops runs, and that our kernels were met."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNS = [
    ("rms_norm", ["RMS_NORM,RMS_NORM_MUL_ROPE,ADD_RMS_NORM"]),
    ("soft_max", ["SOFT_MAX"]),
    ("rope", ["ROPE,ROPE_SET_ROWS"]),
    ("glu", ["SWIGLU,GEGLU,GEGLU_ERF,GELU,SILU"]),
    ("mul_mat", ["MUL_MAT,MUL_MAT_ID"]),
    ("flash_attn", ["FLASH_ATTN_EXT", "-p", "hsk=(64|128),.*type_K=(q8_0|f16)"]),
]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kernel", "arguments"), RUNS, ids=[kernel for kernel, _ in RUNS])
def test_upstreams_own_test(kernel: str, arguments: list[str]) -> None:
    done = subprocess.run([ROOT / "scripts/backend-ops", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    taken = re.search(rf"^axion {kernel} took (\d+) nodes", done.stdout, re.M)
    assert taken and int(taken[1]) > 0, done.stdout[-2000:]
