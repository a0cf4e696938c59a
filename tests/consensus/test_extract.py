"""What answers come down to: labelled pairs that agree or do not, and the forms of each kind."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.consensus.ballot import Kind, Question
from axion_llm.consensus.extract import ballot
from axion_llm.consensus.language import code_of
from axion_llm.consensus.question import question_of

DATA = Path(__file__).with_name("data")


def pairs(name: str) -> Iterator[tuple[Question, str, str, bool]]:
    """Within the first class of a group answers agree; with any of the second they do not."""
    for group in json.loads((DATA / name).read_text()):
        question = question_of(group["question"], wants_json=False, code=code_of(group["question"]))
        right, wrong = group["classes"]
        yield from ((question, a, b, True) for a, b in itertools.combinations(right, 2))
        yield from ((question, a, b, False) for a, b in itertools.product(right, wrong))


def agree(question: Question, a: str, b: str) -> bool:
    first, second = ballot(question, a), ballot(question, b)
    return first is not None and second is not None and first.key == second.key


@pytest.mark.parametrize("name", ["agreement_held_out.json", *(f"agreement_seen{n}.json" for n in ("", "_2", "_3"))])
def test_labelled_pairs(name: str) -> None:
    """The held-out set is newer than the last change here; docs/consensus.md has what each set gave when it was new."""
    found = [(agree(q, a, b), same) for q, a, b, same in pairs(name)]
    assert len(found) >= 400
    num_said, num_same = sum(said for said, _ in found), sum(same for _, same in found)
    num_both = sum(said and same for said, same in found)
    assert num_both / num_said >= 0.97
    assert num_both / num_same >= 0.95


def key(kind: Kind, text: str) -> str | None:
    found = ballot(Question(kind, "What is it?"), text)
    return found.key if found else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs 1,234.50 in all.", "number 1234.5|"),
        ("-5", "number -5|"),
        ("First 3, then 4, so the answer is 12.", "number 12|"),
        ("1.5 km", "number 1500|m"),
        ("two hundred and five", "number 205|"),
        ("1/4", "number 0.25|"),
        ("#### 18", "number 18|"),
        ("no idea", None),
    ],
)
def test_numbers(text: str, expected: str | None) -> None:
    assert key("number", text) == expected


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_itself_however_it_is_written(number: int) -> None:
    forms = [f"{number}", f"{number:,}", f"The answer is {number}.", f"**{number}**", f"{number}.0", f"= {number}"]
    assert len({key("number", form) for form in forms}) == 1


@given(st.text(max_size=300), st.sampled_from(["number", "choice", "yes_no", "date", "label", "json", "code", "short"]))
def test_no_text_is_too_strange(text: str, kind: Kind) -> None:
    question = Question(kind, "A) x\nB) y", labels=("yes", "no"), choices=(("A", "x"), ("B", "y")))
    ballot(question, text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_json_is_compared_by_value(value: Any) -> None:
    loose = json.dumps(value, indent=2)
    assert key("json", loose) == key("json", json.dumps(value)) == key("json", f"```json\n{loose}\n```")


def test_python_by_its_tree() -> None:
    a = "def f(x, y):\n    total = x + y  # sum\n    return total"
    b = 'def f(a: int, b: int) -> int:\n    """Doc."""\n    s = a + b\n    return s'
    assert key("code", a) == key("code", f"```python\n{b}\n```")
    assert key("code", a) != key("code", a.replace("+", "-"))
    assert key("code", "print(x)") != key("code", "print(y)"), "names that it does not bind itself keep their meaning"


def test_question_kinds() -> None:
    def kind(text: str) -> str:
        return question_of(text, wants_json=False, code=code_of(text)).kind

    assert kind("How many eggs are in a dozen?") == "number"
    assert kind("Which?\nA) x\nB) y") == "choice"
    assert kind("Is it raining? Answer yes or no.") == "yes_no"
    assert kind("Write a poem about rain.") == "prose"
    assert kind("Who wrote Emma?") == "short"
    assert question_of("Anything", wants_json=True, code=None).kind == "json"
