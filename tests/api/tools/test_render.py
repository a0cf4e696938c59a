"""A conversation with tools in templates that know all of it, some of it, none of it."""

from typing import Any

import pytest

from axion_llm.api.chat_template import ChatTemplate
from axion_llm.api.tools.command_r import COMMAND_R, COMMAND_R7B
from axion_llm.api.tools.form import Call, Form
from axion_llm.api.tools.gemma3 import GEMMA3
from axion_llm.api.tools.hermes import HERMES
from axion_llm.api.tools.mistral import MISTRAL
from axion_llm.api.tools.phi4 import PHI4
from axion_llm.api.tools.render import form_of, render

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
USER = {"role": "user", "content": "1 + 2?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_12345", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "call_12345", "content": "three"}
HISTORY = [USER, CALL, RESULT]

# Everything is shown, in a notation of its own.
KNOWS_ALL = (
    "{% for t in tools or [] %}TOOL({{ t.function.name }}: {{ t.function.description }}){% endfor %}"
    "{% for m in messages %}{{ m.role }}({{ m.content }}"
    "{% for c in m.tool_calls or [] %}CALL({{ c.id }} {{ c.function.name }} {{ c.function.arguments.a }}){% endfor %}"
    "{{ m.tool_call_id }}){% endfor %}"
)
# As Phi-4-mini's: tools are a text in the system message, calls are not known.
IN_SYSTEM = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'system' and 'tools' in m and m['tools'] is not none %}<|tool|>{{ m['tools'] }}<|/tool|>"
    "{% endif %}{% endfor %}"
)
# As Gemma's: user and assistant in turn, nothing else.
STRICT_TURNS = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
)


def rendered(source: str, form: Form, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
    return render(ChatTemplate(source, "<s>", "</s>"), messages, tools, form)


def test_a_template_that_knows_tools_renders_them_itself() -> None:
    text = rendered(KNOWS_ALL, HERMES, HISTORY, TOOLS)
    assert text == "TOOL(add: )user(1 + 2?)assistant(CALL(call_12345 add 1))tool(threecall_12345)"


def test_without_tools_nothing_is_added() -> None:
    for source in (KNOWS_ALL, IN_SYSTEM, STRICT_TURNS):
        assert rendered(source, HERMES, [USER], []) == ChatTemplate(source, "", "").render([USER])


def test_mistral_gets_ids_of_nine_letters_that_belong_together() -> None:
    text = rendered(KNOWS_ALL, MISTRAL, HISTORY, TOOLS)
    call_id = text.split("CALL(")[1].split()[0]
    assert len(call_id) == 9 and call_id.isalnum()
    assert text.endswith(f"tool(three{call_id})")


@pytest.mark.parametrize("system", [None, {"role": "developer", "content": "Be brief."}])
def test_tools_in_a_field_of_the_system_message(system: dict[str, Any] | None) -> None:
    text = rendered(IN_SYSTEM, PHI4, [*([system] if system else []), *HISTORY], TOOLS)
    assert text.startswith(f"<system>{'Be brief.' if system else 'You are a helpful assistant'}")
    assert '<|tool|>[{"description": "", "parameters": {"type": "object"}, "name": "add"}]<|/tool|>' in text
    assert '<assistant><|tool_call|>[{"name": "add", "arguments": {"a": 1}}]<|/tool_call|><tool>three' in text


@pytest.mark.parametrize("form", [HERMES, MISTRAL, COMMAND_R, GEMMA3], ids=lambda f: f.name)
def test_a_template_that_knows_nothing(form: Form) -> None:
    text = rendered(STRICT_TURNS, form, [{"role": "system", "content": "Be brief."}, *HISTORY, RESULT], TOOLS)
    system, _, rest = text.partition("1 + 2?")
    assert system.startswith("<user>Be brief.") and '"name": "add"' in system
    written = form.write([Call("add", '{"a": 1}')])
    assert rest == f"<assistant>{written}<user>{form.result('three')}\n{form.result('three')}"


def test_words_and_calls_of_one_turn_stay_together() -> None:
    text = rendered(STRICT_TURNS, HERMES, [USER, {**CALL, "content": "Let me see."}, RESULT], [])
    assert "<assistant>Let me see.\n<tool_call>" in text


@pytest.mark.parametrize(
    ("source", "control", "form"),
    [
        ("<|im_start|> <tool_call>", [], HERMES),
        ("<|im_start|>", [], HERMES),
        ("[INST] [TOOL_CALLS]", [], MISTRAL),
        ("[INST]", ["[TOOL_CALLS]"], MISTRAL),
        ("[INST]", [], HERMES),
        ("<|tool|>", [], PHI4),
        ("<|START_OF_TURN_TOKEN|>", [], COMMAND_R),
        ("<|START_OF_TURN_TOKEN|> <|START_ACTION|>", [], COMMAND_R7B),
        ("<start_of_turn>", [], GEMMA3),
        ("", [], HERMES),
    ],
)
def test_a_template_tells_its_family(source: str, control: list[str], form: Form) -> None:
    assert form_of(source, control) is form
