"""What a request may say, and that a refusal names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from axion_llm.api.errors import problem_for
from axion_llm.api.schemas import ChatRequest, CompletionRequest, Generation

USER = {"role": "user", "content": "Hi"}


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [USER], **fields}
    return ChatRequest.model_validate_json(json.dumps(body))


def text(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate_json(json.dumps({"model": "m", "prompt": "p", **fields}))


def refusal(schema: type[Generation], body: bytes) -> tuple[str | None, str | None, str]:
    with pytest.raises(ValidationError) as caught:
        schema.model_validate_json(body)
    problem = problem_for(caught.value)
    assert problem.status == 400
    return problem.param, problem.code, problem.message


def refused_chat(**fields: Any) -> tuple[str | None, str | None, str]:
    return refusal(ChatRequest, json.dumps({"model": "m", "messages": [USER], **fields}).encode())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hi", "Hi"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([], ""),
        (None, None),
    ],
)
def test_content_is_a_string_text_parts_or_null(content: Any, expected: str | None) -> None:
    assert chat(messages=[{"role": "user", "content": content}]).messages[0].content == expected


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_roles(role: str) -> None:
    extra = {"tool_call_id": "1"} if role == "tool" else {}
    assert chat(messages=[{"role": role, "content": "x", **extra}]).messages[0].role == role


def test_only_an_assistant_may_leave_content_out() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert chat(messages=[{"role": "assistant", "tool_calls": [call]}]).messages[0].content is None
    param, code, message = refused_chat(messages=[USER, {"role": "user"}])
    assert (param, code) == ("messages[1]", "missing_required_parameter")
    assert "content" in message


@pytest.mark.parametrize(("stop", "expected"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([], []), (None, None)])
def test_stop_is_a_string_or_a_list(stop: Any, expected: list[str] | None) -> None:
    assert chat(stop=stop).stop == expected


def test_logit_bias_has_token_ids_as_strings() -> None:
    assert chat(logit_bias={"5": -100, "7": 0.5}).logit_bias == {5: -100.0, 7: 0.5}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_prompt_forms(prompt: Any, expected: list[Any]) -> None:
    assert text(prompt=prompt).prompt == expected


@pytest.mark.parametrize(
    "prompt", [None, 5, {}, [], [[]], [True], [-1], [2**31], ["a", 1], [[1], []], [[1], "a"], [None]]
)
def test_other_prompts_are_refused(prompt: Any) -> None:
    param, _, message = refusal(CompletionRequest, json.dumps({"model": "m", "prompt": prompt}).encode())
    assert param == "prompt"
    assert message.startswith("prompt: ")


def test_completions_write_16_tokens_unless_told() -> None:
    assert text().max_new_tokens == 16
    assert text(max_tokens=None).max_new_tokens is None


def test_both_names_of_max_tokens() -> None:
    assert chat(max_tokens=5).max_new_tokens == 5
    assert chat(max_completion_tokens=6).max_new_tokens == 6
    assert chat().max_new_tokens is None


def test_unknown_fields_are_ignored_and_null_means_default() -> None:
    chat(unheard_of=1, messages=[{**USER, "cache_control": {}}])
    everything = [name for name in ChatRequest.model_fields if name not in ("model", "messages")]
    request = chat(**dict.fromkeys(everything))
    assert all(getattr(request, name) is None for name in everything)


REFUSED: list[tuple[str, Any]] = [
    ("temperature", 2.1),
    ("temperature", -0.1),
    ("temperature", "1"),
    ("temperature", True),
    ("top_p", 1.1),
    ("min_p", -1),
    ("top_k", -2),
    ("top_k", 1.5),
    ("presence_penalty", 2.5),
    ("frequency_penalty", -3),
    ("repeat_penalty", 0),
    ("repeat_last_n", 2049),
    ("n_predict", -2),
    ("json_schema", "{}"),
    ("grammar", {}),
    ("chat_template_kwargs", {str(i): 1 for i in range(33)}),
    ("n", 0),
    ("n", 129),
    ("n", 1.0),
    ("max_tokens", 0),
    ("max_tokens", 2**31),
    ("max_completion_tokens", -1),
    ("seed", 2**63),
    ("seed", 10**400),
    ("stop", ["a"] * 5),
    ("stop[0]", ""),
    ("stop[0]", [""]),
    ("stop", 5),
    ("logprobs", 5),
    ("top_logprobs", 21),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"1": 101}),
    ("logit_bias", {"1": True}),
    ("logit_bias", {"1": None}),
    ("logit_bias", {"9" * 30: 1}),
    ("logit_bias", []),
    ("stream", "yes"),
    ("stream_options", 5),
    ("stream_options.include_usage", {"include_usage": "x"}),
    ("messages", []),
    ("messages", "Hi"),
    ("messages[0].role", [{"role": "robot", "content": ""}]),
    ("messages[0].role", [{"content": "x"}]),
    ("messages[0].content", [{"role": "user", "content": 5}]),
    ("messages[0].content", [{"role": "user", "content": {}}]),
    ("messages[0].content", [{"role": "user", "content": ["x"]}]),
    ("messages[0].content", [{"role": "user", "content": [{"type": "text"}]}]),
    ("messages[0].tool_calls", [{"role": "assistant", "tool_calls": 5}]),
    ("model", ""),
    ("model", 5),
    ("model", None),
    ("metadata.a", {"a": 1}),
]


@pytest.mark.parametrize(("param", "value"), REFUSED)
def test_bad_values_are_refused_by_name(param: str, value: Any) -> None:
    field = param.partition(".")[0].partition("[")[0]
    found, code, message = refused_chat(**{field: value})
    assert found == param
    assert param in message
    assert code in ("invalid_value", "invalid_type", "missing_required_parameter")
    assert len(message) < 400


UNSUPPORTED: list[tuple[str, Any]] = [
    ("functions", [{"name": "f"}]),
    ("function_call", {"name": "f"}),
    ("modalities", ["text", "audio"]),
    ("audio", {"voice": "alloy"}),
    ("prediction", {"type": "content", "content": "x"}),
    ("service_tier", "flex"),
    ("moderation", {"model": "x"}),
    ("web_search_options", {}),
    (
        "messages[0].content",
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
    ),
    ("messages[0].function_call", [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]),
    ("stream_options.include_obfuscation", {"include_obfuscation": True}),
]


@pytest.mark.parametrize(("param", "value"), UNSUPPORTED)
def test_known_fields_that_are_not_honoured_are_refused_not_dropped(param: str, value: Any) -> None:
    field = param.partition(".")[0].partition("[")[0]
    found, code, message = refused_chat(**{field: value})
    assert (found, code) == (param, "unsupported_value")
    assert "support" in message or "takes" in message


NEUTRAL: list[tuple[str, Any]] = [
    ("tools", []),
    ("tool_choice", "none"),
    ("tool_choice", "auto"),
    ("response_format", {"type": "text"}),
    ("modalities", ["text"]),
    ("store", False),
    ("store", True),
    ("verbosity", "low"),
    ("reasoning_effort", "high"),
    ("reasoning_effort", None),
    ("service_tier", "auto"),
    ("verbosity", "medium"),
    ("reasoning_effort", "none"),
    ("parallel_tool_calls", True),
    ("user", "me"),
    ("metadata", {"a": "b"}),
    ("stream_options", {"include_obfuscation": False}),
]


@pytest.mark.parametrize(("field", "value"), NEUTRAL)
def test_values_that_ask_for_nothing_special_pass(field: str, value: Any) -> None:
    chat(**{field: value})


def test_suffix_is_refused() -> None:
    text(suffix="")
    body = json.dumps({"model": "m", "prompt": "p", "suffix": "x"}).encode()
    assert refusal(CompletionRequest, body)[:2] == ("suffix", "unsupported_value")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]x", b'{"model": "\xff"}', b'{"model": "\\ud800"}', b"NaN", b"[" * 10_000]
)
def test_broken_json(body: bytes) -> None:
    param, code, _ = refusal(ChatRequest, body)
    assert param is None
    assert code in ("invalid_json", "invalid_type")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"5"])
def test_json_that_is_no_object(body: bytes) -> None:
    param, code, message = refusal(ChatRequest, body)
    assert (param, code) == (None, "invalid_type")
    assert "object" in message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(number: str) -> None:
    body = f'{{"model":"m","messages":[{{"role":"user","content":""}}],"temperature":{number}}}'
    assert refusal(ChatRequest, body.encode())[0] == "temperature"
    body = f'{{"model":"m","messages":[{{"role":"user","content":""}}],"logit_bias":{{"1":{number}}}}}'
    assert refusal(ChatRequest, body.encode())[0] == "logit_bias"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(ChatRequest.model_fields)), JSON))
def test_any_body_is_valid_or_a_400_that_names_a_field(fields: dict[str, Any]) -> None:
    _valid_or_400(ChatRequest, {"model": "m", "messages": [USER], **fields})


@given(st.dictionaries(st.sampled_from(sorted(CompletionRequest.model_fields)), JSON))
def test_any_completion_body_too(fields: dict[str, Any]) -> None:
    _valid_or_400(CompletionRequest, {"model": "m", "prompt": "p", **fields})


@given(st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON, "tool_calls": JSON})))
def test_any_messages_too(messages: list[Any]) -> None:
    _valid_or_400(ChatRequest, {"model": "m", "messages": messages})


def _valid_or_400(schema: type[Generation], body: dict[str, Any]) -> None:
    try:
        schema.model_validate_json(json.dumps(body))
    except ValidationError as exc:
        problem = problem_for(exc)
        assert problem.status == 400
        assert problem.param is None or problem.param.partition(".")[0].partition("[")[0] in body
        json.loads(problem.to_json())
