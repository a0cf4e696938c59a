"""Embeddings: what they are, that they do not depend on company, that streams go on beside them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.embedder import pool, unit
from axion_llm.engine.engine import Engine
from axion_llm.errors import BadRequest, ContextLengthExceeded, EngineError
from axion_llm.worker.messages import Embed, Embedded, Failed, Load
from tests.engine.driver import Seen, note, request, run
from tests.factory import write_tiny_gguf

CATS = ["The cat sat on the mat.", "A cat is sitting on a rug.", "Stock markets fell sharply on Monday."]
LONG = "Gravity is what makes things fall. " * 120


def embed(engine: Engine, request_id: str, *inputs: str | list[int]) -> Embedded:
    asked = Embed(request_id, list(inputs))
    engine.embedder.add(request_id, engine.embedder.tokenize(asked))
    while engine.embedder.has_work:
        for reply in engine.step_embeddings():
            assert isinstance(reply, Embedded) and reply.request_id == request_id
            return reply
    raise AssertionError("no reply")


def vectors(reply: Embedded) -> npt.NDArray[np.float32]:
    return np.stack([np.frombuffer(v, "<f4") for v in reply.vectors])


def test_vectors_have_length_one_and_say_what_is_alike(engine: Engine, model: LlamaModel) -> None:
    reply = embed(engine, "a", *CATS)
    found = vectors(reply)
    assert found.shape == (3, model.n_embd)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert found[0] @ found[1] > found[0] @ found[2]
    assert reply.prompt_tokens == sum(len(model.tokenize(text, True, False)) for text in CATS)


def test_the_mean_is_that_of_llama_cpp(engine: Engine, model: LlamaModel) -> None:
    """Its own pooling, which works on one batch, is the reference."""
    from axion_llm.engine.binding import Batch, lib

    params = lib.llama_context_default_params()
    params.n_ctx, params.embeddings, params.pooling_type = 512, True, lib.LLAMA_POOLING_TYPE_MEAN
    params.type_k = params.type_v = 8  # q8_0
    params.flash_attn_type = 1
    context = lib.llama_init_from_model(model.handle, params)
    try:
        tokens, batch = model.tokenize(CATS[0], True, False), Batch(512)
        batch.add(tokens, 0, 0, num_outputs=len(tokens))
        batch.struct.n_tokens = batch.size
        assert lib.llama_decode(context, batch.struct) == 0
        mean = np.array(lib.llama_get_embeddings_seq(context, 0)[: model.n_embd])
    finally:
        lib.llama_free(context)
    found = vectors(embed(engine, "a", CATS[0]))[0]
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


def test_company_and_cuts_change_no_bit(engine: Engine) -> None:
    alone = [embed(engine, f"alone-{i}", text).vectors[0] for i, text in enumerate([*CATS, LONG])]
    together = embed(engine, "together", LONG, *CATS, *CATS, LONG).vectors
    assert together == [alone[3], *alone[:3], *alone[:3], alone[3]]


def test_tokens_are_as_good_as_text(engine: Engine, model: LlamaModel) -> None:
    tokens = model.tokenize(CATS[0], True, False)
    assert embed(engine, "a", tokens).vectors == embed(engine, "b", CATS[0]).vectors


def test_streams_go_on_and_say_the_same(engine: Engine) -> None:
    """Many inputs, computed beside a stream: the stream has a token in each step, and no other text than alone."""
    alone = run(engine, request("s", "Once upon a time", 24))["s"]
    stream = request("s", "Once upon a time", 24)
    engine.add(stream, engine.tokenize(stream))
    inputs = [LONG, *CATS, LONG, LONG]
    engine.embedder.add("e", engine.embedder.tokenize(Embed("e", list(inputs))))
    seen: dict[str, Seen] = {}
    replies: list[Embedded | Failed] = []
    num_steps_beside = 0
    while engine.has_work:
        events = engine.step()
        for event in events:
            note(seen, event)
        num_steps_beside += bool(events) and engine.embedder.has_work
        replies += engine.step_embeddings()
    assert seen["s"].text == alone.text
    assert num_steps_beside > 3
    assert [type(r) for r in replies] == [Embedded]
    assert replies == [embed(engine, "e", *inputs)]


def test_beside_streams_it_rests_as_long_as_it_worked(engine: Engine) -> None:
    engine.embedder.add("e", engine.embedder.tokenize(Embed("e", [LONG] * 4)))
    began = time.monotonic()
    engine.embedder.step(is_alone=False)
    worked = time.monotonic() - began
    left = engine.embedder._jobs["e"].num_tokens_left
    assert engine.embedder.step(is_alone=False) == []
    assert engine.embedder._jobs["e"].num_tokens_left == left
    time.sleep(worked * 1.5)
    engine.embedder.step(is_alone=False)
    assert engine.embedder._jobs["e"].num_tokens_left < left
    left = engine.embedder._jobs["e"].num_tokens_left
    engine.embedder.step(is_alone=True)  # nothing runs that it could hold up
    assert engine.embedder._jobs["e"].num_tokens_left < left
    engine.embedder.cancel("e")


def test_a_cancelled_one_leaves_nothing(engine: Engine) -> None:
    engine.embedder.add("gone", engine.embedder.tokenize(Embed("gone", [LONG, *CATS])))
    engine.embedder.add("stays", engine.embedder.tokenize(Embed("stays", [LONG])))
    engine.step_embeddings()
    assert engine.embedder.cancel("gone") and not engine.embedder.cancel("gone")
    replies: list[Embedded | Failed] = []
    while engine.embedder.has_work:
        replies += engine.step_embeddings()
    assert [r.request_id for r in replies] == ["stays"]
    assert isinstance(replies[0], Embedded) and replies[0].vectors == embed(engine, "again", LONG).vectors


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ("", BadRequest, "empty"),
        ([], BadRequest, "empty"),
        ([10**6], BadRequest, "token ids"),
        ("word " * 3000, ContextLengthExceeded, "up to 2048"),
    ],
)
def test_what_cannot_be_embedded(engine: Engine, wrong: str | list[int], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        engine.embedder.tokenize(Embed("a", ["fine", wrong]))
    assert "input[1]" in str(caught.value)


def test_a_long_input_has_as_many_cells_as_it_needs(engine: Engine, model: LlamaModel) -> None:
    longest = model.tokenize("word " * 3000, True, False)[:2048]
    assert math.isclose(
        float(np.linalg.norm(vectors(embed(engine, "a", longest, longest)))), math.sqrt(2), rel_tol=1e-6
    )


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_an_encoder_only_embeds(tmp_path: Path, pooling: str) -> None:
    path = write_tiny_gguf(tmp_path / "bert.gguf", "bert", pooling=pooling)
    model = LlamaModel(Load("bert", str(path), n_ctx=512), num_threads=2)
    try:
        engine = Engine(model)
        engine.warm_up()
        assert model.is_encoder and model.pooling == pooling
        alone = embed(engine, "a", CATS[0]).vectors
        assert embed(engine, "b", *CATS).vectors[:1] == alone
        assert len(set(embed(engine, "c", *CATS).vectors)) == 3
        with pytest.raises(BadRequest, match="only embeds"):
            engine.tokenize(request("r", "Hi"))
    finally:
        model.close()


def test_pooling() -> None:
    rows = np.array([[1, 0], [0, 2], [5, 5]], np.float32)
    assert pool("mean", pool("mean", None, rows[:1]), rows[1:]).tolist() == [6, 7]
    assert pool("cls", pool("cls", None, rows[:1]), rows[1:]).tolist() == [1, 0]
    assert pool("last", pool("last", None, rows[:1]), rows[1:]).tolist() == [5, 5]
    assert unit(np.array([3.0, 4.0])).tolist() == [0.6, 0.8]
    assert unit(np.zeros(2)).tolist() == [0, 0]
    with pytest.raises(EngineError):
        unit(np.array([np.nan, 1]))
