"""Every architecture of the shipped registry, as a tiny random model on an 8-bit cache: loads, generates, batches."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.engine import Engine
from axion_llm.worker.messages import Finished, Load
from tests.engine.driver import request, run
from tests.factory import write_tiny_gguf

ARCHITECTURES = ["phi3", "llama", "qwen2", "gemma3", "command-r"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path: Path = tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf"
    write_tiny_gguf(path, request.param)
    model = LlamaModel(Load(request.param, str(path), n_ctx=1024, n_seq_max=4), num_threads=2)
    assert model.meta("general.architecture") == request.param
    engine = Engine(model)
    yield engine
    assert engine.scheduler.cells_used == engine.scheduler.cache.num_cells, "a sequence was left"
    model.close()


def test_generates_and_batches(tiny: Engine) -> None:
    alone = run(tiny, request("a", "one two three", 12, ignore_eos=True, top_logprobs=2))["a"]
    together = run(
        tiny,
        *[request(n, p, 12, ignore_eos=True) for n, p in [("a", "one two three"), ("b", "four"), ("c", "five " * 300)]],
    )
    for seen in (alone, *together.values()):
        assert isinstance(seen.end, Finished)
        assert (seen.end.reason, seen.end.completion_tokens) == ("length", 12)
    # The first token is drawn from one and the same prompt; where it is clear it is the same in any company.
    first = alone.logprobs[0]
    if first.top[0][2] - first.top[1][2] > 0.5:
        assert together["a"].text[:1] == alone.text[:1]
