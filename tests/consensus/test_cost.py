"""What a request can make the event loop do before and after the models: bounded, whatever it looks like."""

from __future__ import annotations

import time

import pytest

from axion_llm.consensus.ballot import Kind, Question
from axion_llm.consensus.extract import ballot
from axion_llm.consensus.facts import facts_of
from axion_llm.consensus.language import language_of
from axion_llm.consensus.options import ConsensusRequest

EVIL = [
    *("[", "[a for ", "( ", "class ", "def f(", "A) ", "1,", "1 000 ", "let a: b ", "select ", "label: a, ", "**", "`"),
    *("```", "/*", '"\\', "classify as a, b, c, ", "a", " ", "\n", "1/", "-", "{", "[1,", "answer ", "=> "),
]
KINDS: list[Kind] = ["number", "choice", "yes_no", "date", "label", "json", "code", "short"]
SECONDS = 1.0  # generous: machines that run tests are busy; a quadratic pattern takes seconds


@pytest.mark.parametrize("part", EVIL)
def test_no_prompt_and_no_answer_holds_the_loop_up(part: str) -> None:
    language_of("Bonjour tout le monde")  # loads its model
    text = part * (400_000 // len(part))
    request = ConsensusRequest.model_validate({"model": "consensus", "messages": [{"role": "user", "content": text}]})
    began = time.process_time()
    facts_of(request)
    assert time.process_time() - began < SECONDS
    for kind in KINDS:
        question = Question(kind, "A) x\nB) y", labels=("yes", "no"), choices=(("A", "x"), ("B", "y")))
        began = time.process_time()
        ballot(question, text[:10_000])  # 2048 tokens
        assert time.process_time() - began < SECONDS
