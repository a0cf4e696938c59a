"""Each family's calls, what only looks like them, and: no cut of a text changes what it gives."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.api.tools.command_r import COMMAND_R, COMMAND_R7B
from axion_llm.api.tools.form import Call, Form
from axion_llm.api.tools.gemma3 import GEMMA3
from axion_llm.api.tools.hermes import HERMES
from axion_llm.api.tools.mistral import MISTRAL
from axion_llm.api.tools.parser import Said, ToolParser
from axion_llm.api.tools.phi4 import PHI4

FORMS = [HERMES, MISTRAL, PHI4, COMMAND_R, COMMAND_R7B, GEMMA3]
NAMES = frozenset(["weather", "time"])
Read = tuple[str, list[tuple[str, str]]]


def read(form: Form, pieces: Sequence[str], **options: int) -> Read:
    """What was said, and the calls; the order and the parts of the deltas are checked on the way."""
    parser = ToolParser(form, NAMES, **options)
    deltas = [d for piece in pieces for d in parser.feed(piece)] + parser.finish()
    said, calls, ids = "", list[list[str]](), set()
    for delta in deltas:
        if isinstance(delta, Said):
            assert delta.text
            said += delta.text
            continue
        if delta.id:
            assert delta.index == len(calls) and delta.id not in ids and delta.name
            ids.add(delta.id)
            calls.append([delta.name, ""])
        assert delta.index == len(calls) - 1
        calls[-1][1] += delta.arguments
    return said, [(name, arguments) for name, arguments in calls]


WEATHER = Call("weather", '{"city": "Köln", "days": [1, {"x": "}]\\""}]}')
TIME = Call("time", "{}")


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_what_a_form_writes_it_reads(form: Form) -> None:
    assert read(form, [form.write([WEATHER])]) == ("", [("weather", WEATHER.arguments)])
    assert read(form, [form.write([WEATHER, TIME])]) == ("", [("weather", WEATHER.arguments), ("time", "{}")])


@pytest.mark.parametrize("form", [f for f in FORMS if f.trigger], ids=lambda f: f.name)
def test_words_before_calls_are_content(form: Form) -> None:
    assert read(form, ["Let me see.\n\n" + form.write([TIME])]) == ("Let me see.", [("time", "{}")])


OTHERS = [
    (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "time"}</tool_call>', "", [("time", '{"a": 1}')]),
    (HERMES, '<tool_call>\n{"name": "time", "arguments": "{\\"a\\": 1}"}', "", [("time", '{"a": 1}')]),
    (HERMES, '<tool_call>{"name": "time"}</tool_call>', "", [("time", "{}")]),
    (HERMES, '<tool_call>{"name": "time", "arguments": null}</tool_call>', "", [("time", "{}")]),
    (HERMES, '<tool_call>{"type": "function", "function": {"name": "time", "arguments": {}}}', "", [("time", "{}")]),
    (HERMES, '{"name": "time", "arguments": {}}', "", [("time", "{}")]),
    (HERMES, '```json\n{"name": "time", "arguments": {}}\n```', "", [("time", "{}")]),
    (HERMES, '[{"name": "time", "arguments": {}}, {"name": "weather"}]', "", [("time", "{}"), ("weather", "{}")]),
    (HERMES, '<tool_call>{"name": "time"}</tool_call> Done.', " Done.", [("time", "{}")]),
    (MISTRAL, '[TOOL_CALLS] [{"name": "time", "arguments": {}, "id": "abcdefghi"}]', "", [("time", "{}")]),
    (MISTRAL, '[TOOL_CALLS]{"name": "time", "arguments": {}}', "", [("time", "{}")]),
    (PHI4, '<|tool_call|>{"name": "time", "arguments": {}}<|/tool_call|>', "", [("time", "{}")]),
    (PHI4, 'functools[{"name": "time", "arguments": {}}]', "", [("time", "{}")]),
    (COMMAND_R, 'Action: [{"tool_name": "time", "parameters": {}}]', "", [("time", "{}")]),
    (
        COMMAND_R7B,
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "time", "parameters": {"a": 2}}]<|END_ACTION|>',
        "",
        [("time", '{"a": 2}')],
    ),
    (GEMMA3, '```tool_call\n{"name": "time", "parameters": {}}\n```', "", [("time", "{}")]),
    (GEMMA3, '{"name": "time", "parameters": {}}\n{"name": "weather"}', "", [("time", "{}"), ("weather", "{}")]),
]


@pytest.mark.parametrize(("form", "text", "said", "calls"), OTHERS)
def test_other_ways_to_call(form: Form, text: str, said: str, calls: list[tuple[str, str]]) -> None:
    assert read(form, [text]) == (said, calls)


TEXTS = [
    "",
    "Just words, with {braces} and [brackets] and `ticks`.  \n",
    "  led by space",
    "{not JSON}",
    '{"answer": 42}',
    '{"name": "unknown_tool", "arguments": {}}',
    "```json\n[1, 2]\n```",
    "``",
    "<tool_call>\nbroken</tool_call>",
    '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>',
    '<tool_call>{"name": 7}</tool_call>',
    '<tool_call>{"name": "time"',
    "<tool_cal",
    "Action: run away!",
    "[TOOL_CALLS] none",
    '<|tool_call|>[{"nam',
]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
@pytest.mark.parametrize("text", TEXTS)
def test_what_only_looks_like_a_call_is_text(form: Form, text: str) -> None:
    assert read(form, [text]) == (text, [])


def test_a_call_that_is_cut_off_is_given_as_far_as_it_goes() -> None:
    assert read(HERMES, ['<tool_call>{"name": "time", "arguments": {"zone": "Eu']) == ("", [("time", '{"zone": "Eu')])


def test_a_broken_call_does_not_hide_a_good_one() -> None:
    text = '<tool_call>{oh <tool_call>{"name": "time", "arguments": {}}</tool_call>'
    assert read(HERMES, [text]) == ("<tool_call>{oh", [("time", "{}")])


def test_calls_beyond_the_limit_are_dropped() -> None:
    assert read(HERMES, [HERMES.write([TIME, WEATHER])], max_calls=1) == ("", [("time", "{}")])


def test_arguments_flow_before_the_call_has_ended() -> None:
    parser = ToolParser(HERMES, NAMES)
    pieces = ['<tool_call>\n{"name": "wea', 'ther", "argu', 'ments": {"city": "Pa', 'ris"}', "}\n</tool_call>"]
    given = [[getattr(d, "name", None) or getattr(d, "arguments", "") for d in parser.feed(p)] for p in pieces]
    assert given == [[], [], ["weather", '{"city": "Pa'], ['ris"}'], []]


# ---- no cut of a text changes what it gives


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({p % (len(text) + 1) for p in places} | {len(text)})
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('ab"\\{}[]<>`é\n ', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"}', max_size=3), inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(
    Call,
    st.sampled_from(sorted(NAMES)),
    st.dictionaries(st.text("xy", max_size=2), json_values, max_size=3).map(
        lambda v: json.dumps(v, ensure_ascii=False)
    ),
)
forms = st.sampled_from(FORMS)
places = st.lists(st.integers(0, 10_000), max_size=12)


@given(forms, st.lists(calls, min_size=1, max_size=3), places)
def test_calls_are_the_same_for_any_cut(form: Form, made: list[Call], at: list[int]) -> None:
    text = form.write(made)
    assert read(form, cut(text, at)) == ("", [(c.name, c.arguments) for c in made])


fragments = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|tool_call|>", "<|/tool_call|>", "Action:", "functools"),
        *("```json\n", "```", " ", "\n", "{", "}", "[", "]", ",", ":", '"', "\\", "word", "<", "null", "7"),
        *(
            '{"name": "time", "arguments": {}}',
            '"name"',
            '"arguments"',
            '"time"',
            '{"tool_name": "weather", "parameters": ',
        ),
    ]
)


@given(forms, st.lists(fragments, max_size=12).map("".join), places)
def test_any_text_is_the_same_for_any_cut(form: Form, text: str, at: list[int]) -> None:
    whole = read(form, [text])
    assert read(form, cut(text, at)) == whole == read(form, list(text))
    if not whole[1]:
        assert whole[0] == text, "without a call every character is content"
