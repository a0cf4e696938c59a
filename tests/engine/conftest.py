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
    """A fresh engine; after the test no sequence may be left in the cache."""
    yield Engine(model)
    assert [model.last_position(i) for i in range(model.n_seq_max)] == [-1] * model.n_seq_max
