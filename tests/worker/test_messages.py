"""What one process writes the other reads back, field for field."""

import pytest

from axion_llm import errors
from axion_llm.worker import messages as m

LOGPROB = m.TokenLogprob(7, b"\xe2\x82", -0.5, [(7, b"\xe2\x82", -0.5), (8, b"x", -1.0)])
LOADED = m.Loaded(8192, 16, 49152, 134_000_000, 96_000_000, 1, "llama", "tiny", None, "<s>", "</s>", 0.1)


@pytest.mark.parametrize(
    "message",
    [
        m.Load("a", "/models/a.gguf", n_ctx=100, kv_type="f16"),
        m.Generate(
            "id", "text", m.Sampling(temperature=0.5, seed=3, logit_bias={5: -100.0}), stop=["x"], top_logprobs=2
        ),
        m.Generate("id", [1, 2, 3], m.Sampling()),
        m.Embed("id", ["text", [1, 2]]),
        m.Tokenize("id", "text", add_special=True),
        m.Detokenize("id", [1, 2]),
        m.Cancel("id"),
        m.Ping(3),
        m.Shutdown(),
    ],
)
def test_to_worker(message: m.ToWorker) -> None:
    assert m.decode_to_worker(m.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        m.Hello(1),
        m.LoadProgress(0.5),
        LOADED,
        m.LoadFailed("model_load_failed", "why"),
        m.Batch([m.Accepted("a", 3), m.Piece("a", "é", 1, [LOGPROB]), m.Finished("a", "stop", "", 3, 1, 0, stop="x")]),
        m.Batch([m.Failed("a", "engine_error", "why", "prompt")]),
        m.Embedded("a", [b"1234", b"5678"], 7),
        m.Tokenized("a", [1], [b"\xff"]),
        m.Detokenized("a", "text"),
        m.Pong(3, m.EngineStats(num_steps=5, step_seconds=0.5)),
    ],
)
def test_from_worker(message: m.FromWorker) -> None:
    assert m.decode_from_worker(m.encode(message)) == message


def test_an_error_keeps_its_kind_over_the_wire() -> None:
    error = errors.from_wire(errors.ContextLengthExceeded.code, "too long", "prompt")
    assert isinstance(error, errors.ContextLengthExceeded)
    assert (error.message, error.param) == ("too long", "prompt")


def test_a_kind_nobody_knows_is_a_service_error() -> None:
    assert type(errors.from_wire("from_the_future", "x")) is errors.ServiceError
    assert type(errors.from_wire("model_load_failed", "x")) is errors.ModelLoadError, "not a class that shares the code"
