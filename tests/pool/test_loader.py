"""What a load is reckoned to take: the model, the cache for embeddings, the projector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from axion_llm.config import Settings
from axion_llm.models.gguf_header import check_file, estimate_bytes
from axion_llm.models.registry import locate
from axion_llm.models.spec import ModelSpec, Source
from axion_llm.pool.loader import Loader, estimate, projector_bytes
from axion_llm.pool.spare import Spares
from tests.factory import write_tiny_gguf, write_tiny_projector


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    path = write_tiny_gguf(tmp_path / "gemma3.gguf", "gemma3")
    return ModelSpec("gemma3", Source(path=path), path.name, n_ctx=1024)


def loader() -> Loader:
    def never() -> object:
        raise AssertionError("nothing is loaded here")

    return Loader(Settings(), Spares(never, 0), locate, estimate)  # type: ignore[arg-type]


def test_embeddings_have_a_cache_of_their_own(spec: ModelSpec, tmp_path: Path) -> None:
    header = check_file(tmp_path / "gemma3.gguf")
    alone = estimate_bytes(header, 1024, "q8_0")
    for_embeddings = estimate_bytes(header, 2048, "q8_0")
    assert estimate(tmp_path / "gemma3.gguf", spec) == replace(alone, kv=alone.kv + for_embeddings.kv)


def test_a_projector_counts_with_what_it_computes_in(spec: ModelSpec, tmp_path: Path) -> None:
    without = loader().inspect(spec)
    projector = write_tiny_projector(tmp_path / "mmproj.gguf", n_embd=64)
    with_it = loader().inspect(replace(spec, mmproj="mmproj.gguf"))
    assert (without.mmproj, with_it.mmproj) == (None, projector)
    more = with_it.need.total - without.need.total
    assert more == projector_bytes(projector) > check_file(projector).tensor_bytes
    assert with_it.need.weights == without.need.weights  # it is read, not mapped: nobody shares it


def test_a_projector_that_is_missing_takes_the_images_only(spec: ModelSpec, caplog: pytest.LogCaptureFixture) -> None:
    found = loader().inspect(replace(spec, mmproj="mmproj.gguf"))
    assert found.mmproj is None
    assert "takes no images" in caplog.text
