"""One real model for all engine tests."""

from collections.abc import Iterator

import pytest

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.engine import Engine
from axion_llm.worker.messages import Load
from tests.models_on_disk import smollm2_path


@pytest.fixture(scope="session")
def model() -> Iterator[LlamaModel]:
    model = LlamaModel(Load("smollm2", str(smollm2_path()), n_ctx=4096, n_seq_max=8), num_threads=2)
    yield model
    model.close()


@pytest.fixture
def engine(model: LlamaModel) -> Iterator[Engine]:
    """A fresh engine; after the test nothing but what the prefix cache keeps may be left in the KV cache."""
    engine = Engine(model)
    yield engine
    engine.scheduler.cache.clear()
    assert engine.scheduler.cells_used == 0
    assert [model.last_position(i) for i in range(model.num_seq_ids)] == [-1] * model.num_seq_ids
