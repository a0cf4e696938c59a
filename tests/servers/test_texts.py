"""/v1/embeddings through the official SDK, /tokenize and /detokenize as llama-server's clients call them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from axion_llm import errors
from axion_llm.worker.messages import Embed, Tokenize
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import eventually


@pytest.mark.behaviour("embeddings.forms")
def test_embeddings_as_the_sdk_asks_for_them(sdk: openai.OpenAI, pool: FakePool) -> None:
    """It asks for base64 without telling and decodes it."""
    found = sdk.embeddings.create(model="fake", input=["a", "ab"])
    assert (found.object, found.model) == ("list", "fake")
    assert [d.embedding for d in found.data] == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert [(d.index, d.object) for d in found.data] == [(0, "embedding"), (1, "embedding")]
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (3, 3)


def test_base64_and_floats_are_the_same(http: httpx.Client, sdk: openai.OpenAI) -> None:
    floats = sdk.embeddings.create(model="fake", input="ab", encoding_format="float")
    assert floats.data[0].embedding == sdk.embeddings.create(model="fake", input="ab").data[0].embedding
    body = {"model": "fake", "input": "ab"}
    assert http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"] == [0, 0, 1, 0]
    encoded = http.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    assert isinstance(encoded["data"][0]["embedding"], str)


@pytest.mark.behaviour("embeddings.forms")
@pytest.mark.parametrize(
    ("given", "asked"),
    [("text", ["text"]), (["a", "b"], ["a", "b"]), ([1, 2, 3], [[1, 2, 3]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_every_form_of_input(sdk: openai.OpenAI, pool: FakePool, given: Any, asked: list[Any]) -> None:
    assert len(sdk.embeddings.create(model="fake", input=given).data) == len(asked)
    question = pool.questions[0]
    assert isinstance(question, Embed) and question.inputs == asked


@pytest.mark.behaviour("embeddings.dimensions")
def test_dimensions(sdk: openai.OpenAI) -> None:
    shorter = sdk.embeddings.create(model="fake", input="ab", dimensions=3)
    assert shorter.data[0].embedding == [0, 0, 1]
    with pytest.raises(openai.BadRequestError, match="have 4") as caught:
        sdk.embeddings.create(model="fake", input="ab", dimensions=5)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": []}, "input"),
        ({"embd_normalize": 0}, "embd_normalize"),
        ({"input": None}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "4"}, "dimensions"),
    ],
)
def test_bad_requests_name_the_field(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    found = http.post("/v1/embeddings", json={"model": "fake", "input": "a", **change})
    assert found.status_code == 400
    assert found.json()["error"]["param"] == param


def test_errors_of_the_model_and_the_pool(sdk: openai.OpenAI, pool: FakePool) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.embeddings.create(model="nope", input="a")
    assert unknown.value.code == "model_not_found"
    pool.script = Script(fail=errors.ContextLengthExceeded("too long", param="input"))
    with pytest.raises(openai.BadRequestError) as too_long:
        sdk.embeddings.create(model="fake", input="a")
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input")
    pool.script = Script(fail=errors.WorkerDied("gone"))
    with pytest.raises(openai.InternalServerError):
        sdk.embeddings.create(model="fake", input="a")


async def test_a_client_that_leaves_is_not_worked_for(async_sdk: openai.AsyncOpenAI, pool: FakePool) -> None:
    pool.script = Script(hang_after=0)
    task = asyncio.create_task(async_sdk.embeddings.create(model="fake", input="a"))
    await asyncio.to_thread(eventually, lambda: pool.num_running == 1)
    task.cancel()
    await asyncio.to_thread(eventually, lambda: pool.num_cancelled == 1 and pool.num_leases == 0)


@pytest.mark.behaviour("extensions.tokens")
def test_tokenize(http: httpx.Client, pool: FakePool) -> None:
    found = http.post("/tokenize", json={"model": "fake", "content": "aé"})
    assert found.json() == {"tokens": [0x61, 0xC3, 0xA9]}
    question = pool.questions[0]
    assert isinstance(question, Tokenize) and (question.add_special, question.parse_special) == (False, True)
    pieces = http.post("/tokenize", json={"model": "fake", "content": "aé", "with_pieces": True}).json()
    assert pieces["tokens"][:2] == [{"id": 0x61, "piece": "a"}, {"id": 0xC3, "piece": [0xC3]}]
    http.post("/tokenize", json={"model": "fake", "content": "a", "add_special": True, "parse_special": False})
    question = pool.questions[-1]
    assert isinstance(question, Tokenize) and (question.add_special, question.parse_special) == (True, False)


@pytest.mark.behaviour("extensions.tokens")
def test_detokenize(http: httpx.Client) -> None:
    found = http.post("/detokenize", json={"model": "fake", "tokens": [0x61, 0xC3, 0xA9]})
    assert found.json() == {"content": "aé"}
    assert http.post("/detokenize", json={"model": "fake", "tokens": [-1]}).json()["error"]["param"] == "tokens[0]"


def test_the_model_has_to_be_named(http: httpx.Client) -> None:
    for path, body in (("/tokenize", {"content": "a"}), ("/detokenize", {"tokens": [1]})):
        error = http.post(path, json=body).json()["error"]
        assert (error["param"], error["code"]) == ("model", "missing_required_parameter")
