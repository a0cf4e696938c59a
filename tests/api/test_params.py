"""Requests become the messages a worker runs: defaults, seeds, choices, what only the model can refuse."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.api.params import NUM_SEEDS, Origin, chat_generates, check, completion_generates, sampling
from axion_llm.api.room import LONGEST_TOKEN_CHARS
from axion_llm.api.schemas import ChatRequest, CompletionRequest
from axion_llm.errors import BadRequest, ContextLengthExceeded
from axion_llm.worker.messages import Generate, Sampling, decode_to_worker, encode
from tests.fakes.fake_pool import INFO, spec

ORIGIN = Origin("chatcmpl-1", spec("m"), is_interactive=True)
DEFAULTS = Sampling(
    temperature=0.3,
    top_k=20,
    top_p=0.8,
    min_p=0.05,
    presence_penalty=0.1,
    frequency_penalty=0.2,
    repeat_penalty=1.1,
    seed=7,
    logit_bias={3: -1.0},
)


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return ChatRequest.model_validate_json(json.dumps(body))


def text(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate_json(json.dumps({"model": "m", "prompt": "p", **fields}))


def test_defaults_are_the_models() -> None:
    assert sampling(chat(), DEFAULTS) == DEFAULTS


def test_the_request_has_precedence_also_with_zero() -> None:
    values: dict[str, Any] = {
        "temperature": 0,
        "top_k": 0,
        "top_p": 0,
        "min_p": 0,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "repeat_penalty": 1,
        "repeat_last_n": 0,
        "seed": 0,
        "logit_bias": {},
    }
    assert sampling(chat(**values), DEFAULTS) == Sampling(temperature=0.0, top_p=0.0, seed=0, repeat_last_n=0)


def test_top_k_of_minus_one_is_off() -> None:
    assert sampling(chat(top_k=-1), DEFAULTS).top_k == 0


def test_choices_have_seeds_of_their_own() -> None:
    assert [g.sampling.seed for g in chat_generates(chat(n=3, seed=5), ORIGIN, INFO)] == [5, 6, 7]
    assert [g.sampling.seed for g in chat_generates(chat(n=3), ORIGIN, INFO)] == [None] * 3


@pytest.mark.parametrize("seed", [-(2**63), -2, 2**32 - 1, 2**32, 2**63 - 1])
def test_every_seed_is_one_that_llama_cpp_takes(seed: int) -> None:
    found = sampling(chat(seed=seed), DEFAULTS).seed
    assert found is not None
    assert 0 <= found < NUM_SEEDS


def test_a_seed_of_minus_one_is_none_as_with_llama_server_and_vllm() -> None:
    assert sampling(chat(seed=-1), Sampling()).seed is None
    assert sampling(chat(seed=-1), DEFAULTS) == DEFAULTS


def test_a_text_that_no_context_can_hold_is_refused_by_its_length() -> None:
    """Before the template has seen it: rendering megabytes takes seconds."""
    most = INFO.n_ctx * LONGEST_TOKEN_CHARS
    with pytest.raises(ContextLengthExceeded) as caught:
        chat_generates(chat(messages=[{"role": "user", "content": "a" * (most + 300)}]), ORIGIN, INFO)
    assert caught.value.param == "messages"
    with pytest.raises(ContextLengthExceeded):
        completion_generates(text(prompt=["b", "a" * (most + 300)]), ORIGIN, INFO)
    completion_generates(text(prompt="a" * most), ORIGIN, INFO)


def test_n_predict_is_another_name_of_max_tokens() -> None:
    assert chat(n_predict=5).max_new_tokens == text(n_predict=5).max_new_tokens == 5
    assert chat(n_predict=5, max_tokens=5).max_new_tokens == 5
    assert chat(n_predict=-1).max_new_tokens is text(n_predict=-1).max_new_tokens is None
    assert text().max_new_tokens == 16


def test_values_for_the_template_are_a_users_text() -> None:
    """They reach the template, and no control token through them."""
    source = "{% if thinking is false %}quick{% endif %} {{ style }}: {{ messages[0].content }}"
    origin = Origin("c", spec("m", chat_template=source), is_interactive=False)
    request = chat(chat_template_kwargs={"thinking": False, "style": "<|im_end|>", "unheard_of": 1})
    [found] = chat_generates(request, origin, msgspec.structs.replace(INFO, control_tokens=["<|im_end|>"]))
    assert found.prompt == "quick <|im_end|>: Hi"
    assert found.literals == [len("quick <")]


def test_chat() -> None:
    request = chat(max_tokens=9, stop="x", ignore_eos=True, logprobs=True, top_logprobs=2)
    assert chat_generates(request, ORIGIN, INFO) == [
        Generate(
            request_id="chatcmpl-1-0",
            prompt="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            sampling=Sampling(),
            max_tokens=9,
            stop=["x"],
            interactive=True,
            top_logprobs=2,
            ignore_eos=True,
        )
    ]


@pytest.mark.parametrize(("fields", "expected"), [({}, None), ({"logprobs": False}, None), ({"logprobs": True}, 0)])
def test_logprobs_of_chat(fields: dict[str, Any], expected: int | None) -> None:
    assert chat_generates(chat(**fields), ORIGIN, INFO)[0].top_logprobs == expected


def test_completions_number_their_choices_by_prompt() -> None:
    found = completion_generates(text(prompt=["a", "b"], n=2, seed=1, logprobs=0), ORIGIN, INFO)
    assert [(g.request_id[-1], g.prompt, g.sampling.seed) for g in found] == [
        ("0", "a", 1),
        ("1", "a", 2),
        ("2", "b", 1),
        ("3", "b", 2),
    ]
    assert found[0].top_logprobs == 0


def test_the_specs_template_goes_first() -> None:
    origin = Origin("c", spec("m", chat_template="{{ messages[0].content }}!"), is_interactive=False)
    assert chat_generates(chat(), origin, INFO)[0].prompt == "Hi!"


def test_a_model_without_template() -> None:
    info = msgspec.structs.replace(INFO, chat_template=None)
    with pytest.raises(BadRequest, match="/v1/completions") as caught:
        chat_generates(chat(), ORIGIN, info)
    assert caught.value.param == "model"


def test_ids_beyond_the_vocabulary() -> None:
    with pytest.raises(BadRequest, match="1000 is not a token id") as caught:
        chat_generates(chat(logit_bias={"1000": 1}), ORIGIN, INFO)
    assert caught.value.param == "logit_bias"
    with pytest.raises(BadRequest, match="1000 is not a token id") as caught:
        completion_generates(text(prompt=[[1], [1000]]), ORIGIN, INFO)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("request_", "is_streamed", "param"),
    [
        (chat(stream_options={}), False, "stream_options"),
        (text(stream_options={"include_usage": True}), False, "stream_options"),
        (chat(top_logprobs=1), True, "top_logprobs"),
        (chat(top_logprobs=1, logprobs=False), True, "top_logprobs"),
        (chat(max_tokens=1, max_completion_tokens=2), True, "max_tokens"),
        (chat(max_tokens=1, n_predict=2), True, "max_tokens"),
        (text(max_tokens=1, n_predict=-1), True, "max_tokens"),
        (text(prompt=["a"] * 65, n=2), True, "n"),
        (text(best_of=2), True, "best_of"),
    ],
)
def test_fields_that_do_not_go_together(request_: Any, is_streamed: bool, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check(request_, is_streamed=is_streamed)
    assert caught.value.param == param


def test_fields_that_do() -> None:
    check(chat(stream_options={}, logprobs=True, top_logprobs=1), is_streamed=True)
    check(chat(max_tokens=1, max_completion_tokens=1), is_streamed=False)
    check(text(best_of=2, n=2, echo=True), is_streamed=False)


NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "min_p": st.floats(0, 1),
    "top_k": st.integers(-1, 2**31 - 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "repeat_penalty": st.floats(0.01, 10),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "max_tokens": st.integers(1, 2**31 - 1),
    "n": st.integers(1, 128),
    "stop": st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), max_size=4),
    "logit_bias": st.dictionaries(st.integers(0, 999).map(str), st.floats(-100, 100), max_size=3),
}


@given(st.fixed_dictionaries({}, optional=NUMBERS))
def test_every_valid_request_goes_over_the_wire(fields: dict[str, Any]) -> None:
    found = chat_generates(chat(**fields), ORIGIN, INFO)
    assert len(found) == fields.get("n", 1)
    assert len({g.request_id for g in found}) == len(found)
    for message in found:
        assert decode_to_worker(encode(message)) == message
