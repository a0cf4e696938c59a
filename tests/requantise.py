"""SmolLM2 in other quantisations, made by llama.cpp's own call: more real models than the package carries."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Literal

from axion_llm.engine.binding import lib
from tests.models_on_disk import smollm2_path

_FTYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7}  # llama_ftype


def requantise_smollm2(path: Path, kind: Literal["F16", "Q4_0", "Q8_0"]) -> Path:
    """Writes it to `path`, 90 to 270 MB, in two or three seconds."""
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = _FTYPES[kind], True
    failed = lib.llama_model_quantize(str(smollm2_path()).encode(), str(path).encode(), ctypes.byref(params))
    assert not failed, f"llama.cpp could not write {path}"
    return path
