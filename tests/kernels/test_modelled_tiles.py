"""The whole library on AMX' tiles in plain C++: packing, layouts and the split of the work, on any CPU with AVX2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests import library_variant
from tests.models_on_disk import smollm2_path

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text(), reason="the model of a tile wants AVX2"),
]

LOGITS = """
import sys
import numpy as np
from axion_llm.engine.binding import Batch, LlamaModel, library
from axion_llm.worker.messages import Load
model = LlamaModel(Load("m", sys.argv[1], n_ctx=512, n_seq_max=1), int(sys.argv[2]))
batch, tokens = Batch(512), model.tokenize("The three primary colours are red, green and blue. " * 9, True, False)
rows, position = [], 0
for count in (1, 9, 40, 30):  # of them the last two have the cache behind them
    batch.clear()
    batch.add(tokens[position : position + count], position, 0, num_outputs=1)
    model.decode(batch)
    rows.append(np.array(model.logits(1)[0]))
    position += count
np.save(sys.argv[3], np.array(rows))
print(library.num_calls_of("amx"))
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library_variant.with_modelled_tiles(tmp_path_factory.mktemp("tiles"))


def run(*words: str, libraries: Path, **environ: str) -> str:
    env = os.environ | {"AXION_LIB_DIR": str(libraries)} | environ
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=True).stdout


def logits(libraries: Path, to: Path, threads: int, **environ: str) -> npt.NDArray[np.float32]:
    num_calls = run("-c", LOGITS, str(smollm2_path()), str(threads), str(to), libraries=libraries, **environ)
    assert (int(num_calls) > 0) == (not environ)
    rows: npt.NDArray[np.float32] = np.load(to)
    return rows


def test_the_self_test_finds_the_tiles_right(libraries: Path) -> None:
    lines = [json.loads(line) for line in run("-m", "axion_llm.kernels.self_test", libraries=libraries).splitlines()]
    found = next(line for line in lines if line.get("kernel") == "amx")
    assert found["num_cases"] >= 10 and found["error"] <= 1


def test_a_whole_model_with_them(libraries: Path, tmp_path: Path) -> None:
    """The same bits as the vectors give, for any number of threads."""
    with_tiles = logits(libraries, tmp_path / "a.npy", 2)
    assert np.isfinite(with_tiles).all()
    assert np.array_equal(with_tiles, logits(libraries, tmp_path / "b.npy", 1))
    assert np.array_equal(with_tiles, logits(libraries, tmp_path / "c.npy", 2, AXION_KERNELS="-amx"))
