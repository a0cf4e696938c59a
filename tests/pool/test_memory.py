"""What memory a process holds, measured on this very process and on one with a real model."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from axion_llm.pool.memory import kv_bytes_at_16_bits, measure
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Load
from tests.models_on_disk import smollm2_path

MIB = 1 << 20


def test_uss_is_less_than_pss_is_less_than_rss() -> None:
    found = measure(os.getpid())
    assert found is not None and 0 < found.uss < found.pss < found.rss


def test_pages_of_the_models_file_are_told_apart_also_through_a_link(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x" * (8 * MIB))
    link = tmp_path / "link.gguf"
    link.symlink_to(file)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0  # touches every page
        found = measure(os.getpid(), link)
        assert found is not None and found.weights == 8 * MIB
    found = measure(os.getpid(), link)
    assert found is not None and found.weights == 0


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert measure(child.pid) is None


@pytest.mark.parametrize(("kv_type", "ratio"), [("q8_0", 32 / 17), ("f16", 1.0), ("f32", 0.5)])
def test_a_cache_at_16_bits(kv_type: str, ratio: float) -> None:
    assert kv_bytes_at_16_bits(17 * MIB, kv_type) == 17 * MIB * ratio  # type: ignore[arg-type]


async def test_a_real_worker_says_its_buffers_and_gives_its_last_figures_at_the_end() -> None:
    worker = WorkerClient()
    await worker.start()
    try:
        info = await worker.load(Load("smollm2", str(smollm2_path()), n_ctx=4096, num_threads=1), 60)
        assert worker.pid is not None
        found = measure(worker.pid, smollm2_path())
        assert found is not None and worker.last_stats.kv_total_tokens == 0
        values = 30 * 4096 * 3 * 64 * 2  # layers, tokens, heads of 64 for K and for V
        assert info.kv_bytes == pytest.approx(values * 34 / 32, rel=0.001)
        assert found.weights >= 80 * MIB and 0 < info.base_bytes < found.rss - found.weights - info.kv_bytes
        assert info.compute_bytes > 512 * info.n_vocab * 4
    finally:
        await worker.stop()
    assert worker.last_stats.kv_total_tokens == 4096
