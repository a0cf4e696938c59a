"""A prompt echoed with its log probabilities: the same ones that generating that text would report."""

from __future__ import annotations

import pytest

from axion_llm.engine.engine import Engine
from tests.engine.driver import request, run

PROMPT = "The capital of France is Paris, and the capital of Italy is"


def test_each_prompt_token_has_the_logprob_that_generating_it_has(engine: Engine) -> None:
    written = run(engine, request("w", "Once upon a time", 12, top_logprobs=3))["w"]
    whole = "Once upon a time" + written.text
    scored = run(engine, request("s", whole, 0, top_logprobs=3, echo=True))["s"]
    assert scored.text == whole
    first = scored.logprobs[0]
    assert first.logprob is None and first.top == []
    assert b"".join(t.piece for t in scored.logprobs).decode() == whole
    assert scored.logprobs[-12:] == written.logprobs
    assert scored.end is not None and (scored.end.reason, scored.end.completion_tokens) == ("length", 0)


def test_the_prefix_cache_hides_no_logprob(engine: Engine) -> None:
    run(engine, request("fills", PROMPT, 4))
    again = run(engine, request("a", PROMPT, 4, top_logprobs=0, echo=True))["a"]
    assert len(again.logprobs) == len(engine.tokenize(request("t", PROMPT))) + 4
    assert again.text.startswith(PROMPT)


def test_long_prompts_and_company(engine: Engine) -> None:
    """A prompt in many pieces, beside streams, has the logprobs that it has alone."""
    long = PROMPT * 12
    alone = run(engine, request("alone", long, 2, top_logprobs=1, echo=True))["alone"]
    engine.scheduler.cache.clear()
    seen = run(
        engine,
        request("stream", "Once upon a time", 40),
        request("scored", long, 2, top_logprobs=1, echo=True),
        request("other", long, 2),
    )
    assert seen["scored"].logprobs == alone.logprobs
    assert seen["scored"].text == alone.text == long + seen["other"].text


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_tokens_are_echoed_as_text(engine: Engine, max_tokens: int) -> None:
    tokens = engine.tokenize(request("t", PROMPT))
    plain = run(engine, request("p", PROMPT, 3))["p"]
    echoed = run(engine, request("e", tokens, max_tokens, echo=True))["e"]  # type: ignore[arg-type]
    assert echoed.text == PROMPT + (plain.text if max_tokens else "")
    assert echoed.logprobs == []
