"""Rendering as transformers does it, what a template may not do, and models without a system role."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.api import sandbox as module
from axion_llm.api.chat_template import ChatTemplate, chat_template, fold_system
from axion_llm.errors import BadRequest, ServiceError

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Raises on a system message and wants roles to take turns, as Gemma 2's does.
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
# Leaves system messages out without a word.
DROPS = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}


PROMPT = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def render(source: str, *messages: dict[str, Any]) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages)


def test_chatml() -> None:
    assert render(CHATML, SYSTEM, USER) == PROMPT.format("Be brief.", "Hi")


def test_developer_is_system() -> None:
    assert render(CHATML, {**SYSTEM, "role": "developer"}, USER) == render(CHATML, SYSTEM, USER)


def test_null_content_is_empty() -> None:
    assert "assistant\n<|im_end|>" in render(CHATML, USER, {"role": "assistant", "content": None}, USER)


def test_tool_messages_pass_through() -> None:
    tool = {"role": "tool", "content": "42", "tool_call_id": "c1"}
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }}:{{ m.tool_call_id }};{% endfor %}"
    assert render(template, USER, tool) == "user:Hi:;tool:42:c1;"


def test_arguments_of_calls_are_objects_for_the_template() -> None:
    template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "é<"}'}}
    assert render(template, {"role": "assistant", "tool_calls": [call]}) == '{"a": "é<"}'
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{broken"}}
    assert render(template, {"role": "assistant", "tool_calls": [call]}) == '"{broken"'


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{% if true %}\n  x\n  {% endif %}\ny", "  x\ny"),  # trim_blocks, lstrip_blocks
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}]'),
        ("{{ {'b': 1, 'a': '<'} | tojson(indent=1) }}", '{\n "b": 1,\n "a": "<"\n}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}{{ 'x' }}{% endgeneration %}", "x"),
        ("{{ tools is none }}{{ documents is none }}", "TrueTrue"),
        ("{{ '-' * 3 }}{{ 2 ** 3 }}", "---8"),
        ("{{ strftime_now('%Y') | int > 2000 }}", "True"),
        ("{% set x = namespace(n=0) %}{% for m in messages %}{% set x.n = 5 %}{% endfor %}{{ x.n }}", "5"),
    ],
)
def test_the_environment_of_transformers(source: str, expected: str) -> None:
    assert render(source, USER) == expected


@pytest.mark.parametrize("source", [GEMMA, DROPS])
def test_a_system_message_reaches_a_model_without_that_role(source: str) -> None:
    template = ChatTemplate(source, "<bos>", "<eos>")
    assert not template.accepts_system
    assert "Be brief.\n\nHi" in template.render([SYSTEM, USER])


def test_a_template_that_places_the_system_message_itself_is_left_alone() -> None:
    source = "{% if messages[0].role == 'system' %}<<{{ messages[0].content }}>>{% endif %}"
    assert render(source, SYSTEM, USER) == "<<Be brief.>>"


def test_fold_system() -> None:
    again = {**SYSTEM, "content": "In French."}
    assert fold_system([SYSTEM, again, USER, ASSISTANT, again, USER]) == [
        {"role": "user", "content": "Be brief.\n\nIn French.\n\nHi"},
        ASSISTANT,
        {"role": "user", "content": "In French.\n\nHi"},
    ]
    assert fold_system([USER, ASSISTANT, SYSTEM])[-1] == {"role": "user", "content": "Be brief."}
    assert fold_system([SYSTEM]) == [{"role": "user", "content": "Be brief."}]


def test_what_the_template_refuses_is_the_clients_fault() -> None:
    with pytest.raises(BadRequest, match="roles must alternate") as caught:
        render(GEMMA, USER, USER)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[5].content.x }}",
        "{{ none + 'x' }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 999999999 }}",
        "{{ 'x' * 9999999 * 9999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ range(10000000) }}",
        "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, '1000000000') }}",
        "{{ ('x' * 1000000).replace('', 'x' * 100000) }}",
        "{{ ('x' * 1000000) | replace('', 'x' * 100000) }}",
        "{{ ('\t' * 1000000).expandtabs(10000) }}",
        "{{ ('\n' * 1000000) | indent(10000) }}",
        "{{ messages | tojson(indent=100000) }}",
        "{{ (5).to_bytes(1000000000, 'big') }}",
        "{% set x = 'x' * 1000000 %}{{ [x] * 100000 }}",
        "{% set x = 'x' * 1000000 %}{{ ([x] * 100000) | tojson }}",
        "{% set x = 'x' * 1000000 %}{{ ([x] * 100000) | join }}",
        "{% set x = 'x' * 1000000 %}{{ ''.join([x] * 100000) }}",
        "{% set x = 'x' * 1000000 %}{{ ([x] * 100000) ~ '' }}",
        "{% set x = 'x' * 1000000 %}{{ '%s' % ([x] * 100000,) }}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1, 2]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1, 2]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ lipsum(1000) }}",
    ],
)
def test_faults_and_excesses_of_a_template(source: str) -> None:
    with pytest.raises(BadRequest):
        render(source, USER)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ '' }}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i.y %}{% endfor %}{% endfor %}",
        "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
        "{% set r = range(99999) %}{% for i in r if false %}{% endfor %}{% for i in r %}{% for j in r %}{% set x = 1 %}"
        "{% endfor %}{% endfor %}",
        "{% set r = range(99999) %}{% for i in r %}{{ r | sum | string | length }}{% endfor %}",
        "{% set r = range(9999) | list %}{% for i in r recursive %}{{ loop(r) if loop.depth < 3 }}"
        "{% for j in r %}{% for k in r %}{% endfor %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_without_end(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RENDER_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(BadRequest, match="longer than"):
        render(source, USER)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a' ~ 1 ~ none ~ ['b'] }}", "a1None['b']"),
        (
            "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ loop.first }}{% endfor %}",
            "1/1TrueTrue",
        ),
        ("{% for k, v in messages[0] | items %}{{ k }}{% endfor %}", "rolecontent"),
        ("{% for m in [] %}{% else %}none{% endfor %}", "none"),
        ("{% for i in [[1, [2]], 3] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}", "123"),
        ("{% for i in [1, 2, 3] if i != 2 %}{{ loop.previtem | default(0) }}{{ i }}{% endfor %}", "0113"),
        ("{{ '%s-%05.1f' % ('a', 2.5) }}{{ '{:>3}'.format(7) }}", "a-002.5  7"),
        ("{{ messages | map(attribute='role') | join(', ') }}", "user"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ 100000 | string }}{{ 7 % 2 }}", "1000001"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(123456) }}", "<123456>"),
        ("{{ 'a,b'.split(',')[-1] }}{{ ' x '.strip() }}{{ 'abc'[::-1] }}", "bxcba"),
    ],
)
def test_what_is_rewritten_means_the_same(source: str, expected: str) -> None:
    assert render(source, USER) == expected


def test_threads_render_at_the_same_time_on_accounts_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORK", 30_000)
    template = ChatTemplate("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "", "")
    messages = [{"role": "user", "content": "a" * 100}] * 200  # two thirds of what one render may make
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: template.render(messages), range(16)))
    assert set(found) == {"A" * 20_000}


def test_a_source_that_is_too_long() -> None:
    with pytest.raises(ServiceError, match="longer than"):
        ChatTemplate("x" * (module.MAX_SOURCE_CHARS + 1), "", "")


def test_a_template_that_is_none() -> None:
    with pytest.raises(ServiceError, match="does not compile"):
        ChatTemplate("{% if %}", "", "")


def test_compiled_once() -> None:
    assert chat_template(CHATML, "a", "b") is chat_template(CHATML, "a", "b")
    assert chat_template(CHATML, "a", "b") is not chat_template(CHATML, "a", "c")


@given(st.text(), st.text())
def test_no_text_is_taken_for_a_template(system: str, user: str) -> None:
    prompt = render(CHATML, {"role": "system", "content": system}, {"role": "user", "content": user})
    assert prompt == PROMPT.format(system, user)
