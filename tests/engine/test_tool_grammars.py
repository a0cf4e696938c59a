"""The grammar of each family's calls, the parser that reads them and the model between the two."""

import json
from typing import Any

import jsonschema
import pytest

from axion_llm.api.tools.choice import ToolUse, tool_use
from axion_llm.api.tools.command_r import COMMAND_R, COMMAND_R7B
from axion_llm.api.tools.form import Call, Form
from axion_llm.api.tools.gemma3 import GEMMA3
from axion_llm.api.tools.hermes import HERMES
from axion_llm.api.tools.mistral import MISTRAL
from axion_llm.api.tools.parser import Called
from axion_llm.api.tools.phi4 import PHI4
from axion_llm.api.tools.plan import ToolPlan
from axion_llm.engine.engine import Engine
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Finished, Grammar, Sampling
from tests.engine.driver import note, request

FORMS = [HERMES, MISTRAL, PHI4, COMMAND_R, COMMAND_R7B, GEMMA3]
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Köln"]}}, "required": ["city"]}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": {**CITY, "additionalProperties": False}}},
    {"type": "function", "function": {"name": "time", "strict": True}},
]
ROME, TIME = Call("weather", '{"city": "Rome"}'), Call("time", "{}")


def use(choice: Any = "required", **options: Any) -> ToolUse:
    found = tool_use(TOOLS, choice, is_parallel=options.get("is_parallel"))
    assert found
    return found


def accepts(engine: Engine, grammar: Grammar, text: str) -> bool:
    matcher = engine.grammars.constraint(grammar).matcher
    tokens = engine.model.tokenize(text, add_special=False, parse_special=False)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def behind_trigger(form: Form, *calls: Call) -> str:
    return form.write(calls).removeprefix(form.trigger).removesuffix(form.tail)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_what_a_form_writes_its_grammar_allows(engine: Engine, form: Form, choice: str) -> None:
    grammar = use(choice).grammar(form)
    assert accepts(engine, grammar, behind_trigger(form, ROME))
    assert accepts(engine, grammar, behind_trigger(form, ROME, TIME, ROME))
    assert not accepts(engine, grammar, behind_trigger(form, Call("weather", '{"city": "Oslo"}')))
    assert not accepts(engine, grammar, behind_trigger(form, Call("time", '{"zone": 1}')))
    assert not accepts(engine, grammar, behind_trigger(form, Call("nobody", "{}")))
    alone = use(choice, is_parallel=False).grammar(form)
    assert accepts(engine, alone, behind_trigger(form, ROME))
    assert not accepts(engine, alone, behind_trigger(form, ROME, TIME))


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_a_named_tool_is_the_only_one(engine: Engine, form: Form) -> None:
    grammar = use({"type": "function", "function": {"name": "time"}}).grammar(form)
    assert accepts(engine, grammar, behind_trigger(form, TIME))
    assert not accepts(engine, grammar, behind_trigger(form, ROME))


@pytest.mark.parametrize("form", [f for f in FORMS if f.trigger], ids=lambda f: f.name)
def test_calls_or_an_answer(engine: Engine, form: Form) -> None:
    answer = Grammar("json_schema", '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}')
    grammar = ToolPlan(use("auto"), form, ()).grammar(answer)
    assert accepts(engine, grammar, '{"ok": true}')
    assert accepts(engine, grammar, form.trigger + behind_trigger(form, ROME))
    assert not accepts(engine, grammar, "Hello")


@pytest.mark.parametrize(("form", "control"), [(GEMMA3, ()), (MISTRAL, ("[TOOL_CALLS]",))])
def test_where_one_cannot_tell_them_apart_both_are_refused(form: Form, control: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match="cannot be combined"):
        ToolPlan(use("auto"), form, control).grammar(Grammar("json_schema", "{}"))


def test_words_are_free_where_a_call_has_no_trigger(engine: Engine) -> None:
    grammar = use("auto").grammar(GEMMA3)
    assert accepts(engine, grammar, "It is {sunny}.") and not accepts(engine, grammar, '{"name": "nobody"}')


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
@pytest.mark.parametrize("seed", range(2))
def test_the_models_calls_are_valid(engine: Engine, form: Form, seed: int) -> None:
    plan = ToolPlan(use(), form, ())
    prompt = f"<|im_start|>user\nThe weather?<|im_end|>\n<|im_start|>assistant\n{plan.answer_begins}"
    one = request("r", prompt, 300, grammar=plan.grammar(None), sampling=Sampling(temperature=1.0, seed=seed))
    engine.add(one, engine.tokenize(one), engine.compile(one))
    seen: dict[str, Any] = {}
    while engine.has_work:
        for event in engine.step():
            note(seen, event)
    assert isinstance(seen["r"].end, Finished) and seen["r"].end.reason == "stop"
    parser = plan.parser()
    calls: list[list[str]] = []
    for delta in [*parser.feed(seen["r"].text), *parser.finish()]:
        assert isinstance(delta, Called), "no words"
        calls += [[delta.name or "", ""]] if delta.id else []
        calls[-1][1] += delta.arguments
    assert 1 <= len(calls) <= 8
    for name, arguments in calls:
        parameters = {t["function"]["name"]: t["function"].get("parameters") for t in TOOLS}[name]
        jsonschema.validate(json.loads(arguments), parameters or {"type": "object", "maxProperties": 0})
