"""Tools over HTTP on all three ports, with every family's words in the model's mouth and the real SDK listening."""

from typing import Any

import msgspec
import openai
import pytest

from axion_llm.api.tools.command_r import COMMAND_R
from axion_llm.api.tools.form import Call, Form
from axion_llm.api.tools.gemma3 import GEMMA3
from axion_llm.api.tools.hermes import HERMES
from axion_llm.api.tools.mistral import MISTRAL
from axion_llm.api.tools.phi4 import PHI4
from tests.behaviour.statements import MODEL
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer

# What tells each family's template; the rest of a template does not matter here.
LOOP = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
TEMPLATES = {
    HERMES: LOOP,
    MISTRAL: "[INST][TOOL_CALLS]" + LOOP,
    PHI4: "{# <|tool|> #}" + LOOP,
    COMMAND_R: "<|START_OF_TURN_TOKEN|>" + LOOP,
    GEMMA3: "<start_of_turn>" + LOOP,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "time"}},
]
MESSAGES: Any = [{"role": "user", "content": "What is 1 + 2?"}]
CALLS = [Call("add", '{"a": 1, "b": "}2\\n"}'), Call("time", "{}")]


@pytest.fixture(params=["standard", "streaming", "consensus"])
def url(server: LiveServer, request: pytest.FixtureRequest) -> str:
    return {str(k): v for k, v in server.urls.items()}[request.param]


def speak(pool: FakePool, form: Form, text: str, **script: Any) -> None:
    pool.info = msgspec.structs.replace(pool.info, chat_template=TEMPLATES[form], control_tokens=list(form.control))
    pool.script = Script(pieces=[text[i : i + 3] for i in range(0, len(text), 3)], **script)


def models(url: str, server: LiveServer) -> list[str]:
    return ["fake", "consensus"] if url == server.urls["consensus"] else ["fake"]


@pytest.mark.behaviour("tools.deltas", "tools.choice", also=[MODEL])
@pytest.mark.parametrize("form", TEMPLATES, ids=lambda f: f.name)
def test_calls_of_every_family(sdk: openai.OpenAI, pool: FakePool, server: LiveServer, url: str, form: Form) -> None:
    for model in models(url, server):
        speak(pool, form, form.write(CALLS))
        done = sdk.chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS, stream=False)
        (choice,) = done.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        found = [
            (c.function.name, c.function.arguments) for c in choice.message.tool_calls or () if c.type == "function"
        ]
        assert found == [(c.name, c.arguments) for c in CALLS]

        with sdk.chat.completions.stream(model=model, messages=MESSAGES, tools=TOOLS) as stream:
            events = list(stream)
            final = stream.get_final_completion().choices[0]
        assert final.finish_reason == "tool_calls"
        assert [(c.function.name, c.function.arguments) for c in final.message.tool_calls or ()] == found
        assert sum(e.type == "tool_calls.function.arguments.done" for e in events) == 2
        assert not any(e.type == "content.delta" and e.delta for e in events)


@pytest.mark.behaviour("tools.choice", also=[MODEL])
@pytest.mark.parametrize("form", TEMPLATES, ids=lambda f: f.name)
def test_words_stay_words(sdk: openai.OpenAI, pool: FakePool, server: LiveServer, url: str, form: Form) -> None:
    text = "The answer is {3}, as [1, 2] shows.\n"
    for model in models(url, server):
        speak(pool, form, text)
        done = sdk.chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS, stream=False).choices[0]
        assert (done.message.content, done.message.tool_calls, done.finish_reason) == (text, None, "stop")
        chunks = list(sdk.chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == text


def test_a_call_that_was_cut_off_ends_with_length(sdk: openai.OpenAI, pool: FakePool) -> None:
    speak(pool, HERMES, HERMES.write(CALLS)[:45], reason="length")
    done = sdk.chat.completions.create(model="fake", messages=MESSAGES, tools=TOOLS, stream=False).choices[0]
    assert done.finish_reason == "length"
    assert [c.function.name for c in done.message.tool_calls or () if c.type == "function"] == ["add"]


@pytest.mark.behaviour("tools.choice", "tools.required")
def test_what_the_worker_is_asked(sdk: openai.OpenAI, pool: FakePool) -> None:
    def asked(form: Form, **options: Any) -> Any:
        speak(pool, form, "x")
        sdk.chat.completions.create(model="fake", messages=MESSAGES, tools=TOOLS, stream=False, **options)
        return pool.requests[-1]

    for form in TEMPLATES:
        auto, forced = asked(form), asked(form, tool_choice="required")
        assert '"name": "add"' in auto.prompt, "the tools are in the prompt"
        assert forced.prompt == auto.prompt + form.trigger
        assert (forced.grammar.trigger, forced.grammar.is_optional) == (None, False)
        assert (auto.grammar.trigger or "", auto.grammar.is_optional) == (form.trigger, True)
        assert auto.shown == forced.shown == list(form.control)
        none = asked(form, tool_choice="none")
        assert (none.grammar, none.shown, '"name": "add"' in none.prompt) == (None, [], False)
        named = asked(form, tool_choice={"type": "function", "function": {"name": "time"}})
        assert "time" in named.grammar.source and "call_1" not in named.grammar.source


@pytest.mark.behaviour("tools.conversation")
def test_earlier_calls_and_results_are_in_the_prompt(sdk: openai.OpenAI, pool: FakePool) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    history = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "three"},
    ]
    for form in TEMPLATES:
        speak(pool, form, "x")
        sdk.chat.completions.create(model="fake", messages=history, stream=False)
        prompt = pool.requests[-1].prompt
        assert form.write([Call("add", '{"a": 1}')]) in prompt and "three" in prompt
