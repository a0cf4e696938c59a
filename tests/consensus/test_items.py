"""Questions with known answers: the built-in generators, and sets that users bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from axion_llm.consensus.ballot import Kind
from axion_llm.consensus.items import GENERATORS, built_in, item_of, read_items
from axion_llm.errors import ConfigError

KINDS: dict[str, Kind] = {
    "arithmetic": "number",
    "story": "number",
    "choice": "choice",
    "yes_no": "yes_no",
    "extraction": "date",
    "language": "label",
    "code": "code",
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_every_item_can_be_answered_and_compared(kind: str) -> None:
    for item in built_in(40, seed=3, kinds=[kind]):
        assert item.question.kind == KINDS[kind], item.prompt
        assert item.is_right(item.answer)
        assert item.is_right(f"{item.answer}" if kind == "code" else f"The answer is {item.answer}.") or kind in (
            "yes_no",
        )
        assert not item.is_right("I do not know.")
        assert not item.is_right("")


def test_the_same_seed_gives_the_same_items() -> None:
    assert built_in(50, 1) == built_in(50, 1) != built_in(50, 2)
    prompts = [item.prompt for item in built_in(70)]
    assert len(prompts) == len(set(prompts)) == 70


def test_a_users_set(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(
        '{"prompt": "What is 2 + 2?", "answer": 4}\n\n{"prompt": "Capital of Peru?", "answer": "Lima", "domain": "x"}\n'
    )
    first, second = read_items(file)
    assert first == item_of("What is 2 + 2?", "4")
    assert second.domain == "x"
    assert second.is_right("The capital of Peru is Lima.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no items"),
        ("[]", "line 1"),
        ('{"prompt": "What is 2 + 2?", "answer": "4"}\nnonsense', "line 2"),
        ('{"prompt": "Write a poem.", "answer": "Roses are red."}', "cannot be compared as a prose"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_items(file)
