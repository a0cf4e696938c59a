"""Fusions change no bit: logits with every fusion on are those of the separate kernels, for every architecture.

Nor do AMX' tiles, where there are any: products of many columns have the bits of the vectors' tiles.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from axion_llm import native
from axion_llm.engine.binding import Batch, LlamaModel
from axion_llm.worker.messages import KvType, Load
from tests.factory import write_tiny_gguf

# (architecture, weights, cache): sizes below make every tile shape occur: odd rows, several columns, several jobs.
MODELS: list[tuple[str, GGMLQuantizationType, KvType]] = [
    ("llama", GGMLQuantizationType.Q4_1, "f16"),
    ("llama", GGMLQuantizationType.Q8_0, "q8_0"),
    ("qwen2", GGMLQuantizationType.Q4_0, "q8_0"),
    ("phi3", GGMLQuantizationType.Q5_1, "q8_0"),
    ("gemma3", GGMLQuantizationType.Q8_0, "f16"),
    ("command-r", GGMLQuantizationType.Q8_0, "q8_0"),
    ("llama", GGMLQuantizationType.F16, "f16"),
]
STEPS = (1, 3, 8, 9, 40, 1, 1, 300, 1, 2)


@pytest.fixture(scope="module", params=MODELS, ids=lambda m: f"{m[0]}-{m[1].name}-{m[2]}")
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, KvType]]:
    arch, weight_type, kv_type = request.param
    path = tmp_path_factory.mktemp("tiny") / "model.gguf"
    yield write_tiny_gguf(path, arch, weight_type=weight_type, n_head=4, n_head_kv=2, n_ff=352), kv_type


def logits(path: Path, kv_type: KvType, threads: int) -> list[str]:
    """Digests of the logits after each of STEPS."""
    model = LlamaModel(Load("tiny", str(path), n_ctx=1024, n_seq_max=1, kv_type=kv_type), threads)
    batch, seen, position = Batch(512), [], 0
    try:
        for count in STEPS:
            batch.clear()
            batch.add([(position + i) * 7919 % model.n_vocab for i in range(count)], position, 0, num_outputs=1)
            model.decode(batch)
            values = np.array(model.logits(1)[0], copy=True)
            assert np.isfinite(values).all()
            seen.append(hashlib.sha256(values.tobytes()).hexdigest())
            position += count
    finally:
        model.close()
    return seen


def in_own_process(path: Path, kv_type: KvType, kernels: set[str]) -> list[str]:
    """The same from a process that begins with these kernels: only that decides whether graphs are reordered."""
    code = f"from tests.engine.test_fusions import *; print(*logits(Path({str(path)!r}), {kv_type!r}, 2))"
    env = os.environ | {"AXION_KERNELS": ",".join(sorted(kernels)), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bits(tiny: tuple[Path, KvType]) -> None:
    library = native.load()
    everything = {k.name for k in library.kernels()}
    fusions = {name for name in everything if name.startswith("fuse_")}
    expected = in_own_process(*tiny, everything - fusions)
    try:
        for on in [set[str](), fusions, *({name} for name in sorted(fusions))]:
            for threads in (2, 3) if on == fusions else (2,):
                library.enable(everything - fusions | on)
                assert logits(*tiny, threads) == expected, f"{on or 'no fusion'}, {threads} threads, steps {STEPS}"
    finally:
        library.enable(everything)


def test_amx_has_the_bits_of_the_vectors(tiny: tuple[Path, KvType]) -> None:
    library = native.load()
    everything = {k.name for k in library.kernels()}
    if "amx" not in everything:
        pytest.skip("a build without AMX")
    try:
        library.enable(everything - {"amx"})
        expected = logits(*tiny, 2)
        before = {k.name: k.calls for k in library.kernels()}
        library.enable(everything)
        for threads in (1, 2, 3):
            assert logits(*tiny, threads) == expected, f"{threads} threads, steps {STEPS}"
        calls = {k.name: k.calls for k in library.kernels()}
    finally:
        library.enable(everything)
    if "amx" in library.isa and tiny[1] == "q8_0":  # F16 has no tiles, and the kernel may refuse them
        assert calls["amx"] > before["amx"]
