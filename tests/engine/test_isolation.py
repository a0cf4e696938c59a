"""What goes wrong for one sequence, wherever it is, ends that one; the others' texts are what they are without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from axion_llm.engine.engine import Engine
from axion_llm.errors import EngineError
from axion_llm.worker.messages import Embed, Embedded, Failed, Finished, Generate, Grammar, Sampling
from tests.engine.driver import Seen, note, request

LIST = "apple, pear, plum, cherry, grape, melon; " * 6
NUMBERS = Grammar("regex", r"([0-9]{2} (green|yellow) apples, ){20}")
OTHERS = ("one", "two", "three")


def boom(*_: object, **__: object) -> Any:
    raise ZeroDivisionError("injected")


def others() -> list[Generate]:
    return [
        request("one", "The sea is", 12, ignore_eos=True),
        request("two", LIST, 12, ignore_eos=True, speculation="ngram", sampling=Sampling(temperature=0.8, seed=3)),
        request("three", "Apples:", 12, grammar=NUMBERS, top_logprobs=1),
    ]


Break = Callable[[Engine], None]


def run(engine: Engine, requests: list[Generate], break_it: Break = lambda _: None) -> dict[str, Seen]:
    for one in requests:
        engine.add(one, engine.tokenize(one), engine.compile(one))
    break_it(engine)
    seen: dict[str, Seen] = {}
    while engine.has_work:
        for event in engine.step():
            note(seen, event)
    return seen


def bad(**fields: Any) -> Generate:
    return request("bad", LIST, 30, **{"grammar": NUMBERS, **fields})


def at(*path: str) -> Break:
    """Breaks what stands there, of the bad sequence's output or else of the sequence."""

    def break_it(engine: Engine) -> None:
        target: Any = engine._outputs["bad"] if hasattr(engine._outputs["bad"], path[0]) else engine._sequences["bad"]
        for name in path[:-1]:
            target = getattr(target, name)
        setattr(target, path[-1], boom)

    return break_it


def no_matcher(engine: Engine) -> None:
    constraint: Any = engine._outputs["bad"].constraint
    constraint.matcher = object()


STATIONS = {
    "sampled": (bad(), at("sampler", "sample")),
    "its mask is wanted": (bad(), at("want_masks")),
    "its mask is computed": (bad(), no_matcher),
    "its grammar goes on": (bad(), at("constraint", "accept")),
    "what its grammar forces": (bad(), at("constraint", "forced")),
    "guessed": (bad(grammar=None, speculation="ngram"), at("drafter", "propose")),
    "its guesses are counted": (bad(grammar=None, speculation="ngram"), at("drafter", "report")),
    "its guesses are learnt": (bad(grammar=None, speculation="ngram"), at("drafter", "extend")),
    "its tokens become bytes": (bad(), at("piece")),
    "its bytes become text": (bad(), at("text", "feed")),
    "its text ends": (bad(grammar=None, ignore_eos=True), at("text", "finish")),
    "echoed": (bad(grammar=None, echo=True, top_logprobs=1), at("prompt_logprobs", "take")),
    "its prompt's logprobs": (bad(grammar=None, echo=True, top_logprobs=1), at("prompt_logprobs", "add")),
}


@pytest.fixture(scope="module")
def quiet() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("station", STATIONS)
def test_one_sequence_fails_and_no_other(engine: Engine, quiet: dict[str, str], station: str) -> None:
    if not quiet:
        quiet |= {name: seen.text for name, seen in run(engine, others()).items()}
    broken, break_it = STATIONS[station]
    seen = run(engine, [*others(), broken], break_it)
    end = seen["bad"].end
    assert isinstance(end, Failed), end
    assert (end.code == EngineError.code and "ZeroDivision" in end.message) or station == "its mask is computed"
    assert {name: seen[name].text for name in OTHERS} == quiet
    assert all(isinstance(seen[name].end, Finished) for name in OTHERS)
    assert engine.stats().num_running == engine.stats().num_waiting == 0


def test_a_fault_of_one_leaves_what_is_cached(engine: Engine) -> None:
    """It was computed as it should be: who can make his own requests fail must not empty the cache for all."""
    prompt = "A lighthouse stands on the rocks and waits for the ships. " * 10
    run(engine, [request("first", prompt, 4)])
    run(engine, [bad()], at("sampler", "sample"))
    again = run(engine, [request("again", prompt, 4)])["again"].end
    assert isinstance(again, Finished)
    assert again.cached_tokens > 50


def test_a_cancel_that_fails_ends_all_the_same(engine: Engine) -> None:
    one = bad(grammar=None)
    engine.add(one, engine.tokenize(one))
    engine.step()
    at("text", "finish")(engine)
    assert isinstance(engine.cancel("bad"), Failed)
    assert not engine.has_work


def test_a_step_that_fails_as_a_whole_ends_who_was_in_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.model, "logits", boom)
    seen = run(engine, others())
    assert all(isinstance(one.end, Failed) for one in seen.values())
    monkeypatch.undo()
    assert all(isinstance(one.end, Finished) for one in run(engine, others()).values())


def test_one_text_that_cannot_be_embedded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, take = engine.embedder, engine.embedder._take

    def take_all_but_bad(s: Any, rows: Any) -> None:
        if s.input.job.request_id == "bad":
            boom()
        take(s, rows)

    monkeypatch.setattr(embedder, "_take", take_all_but_bad)
    for name, texts in (("good", ["a", "b"]), ("bad", ["c", "d"]), ("fine", ["e"])):
        embedder.add(name, embedder.tokenize(Embed(name, list(texts))))
    ends = []
    while embedder.has_work:
        ends += engine.step_embeddings()
    assert {end.request_id: type(end) for end in ends} == {"good": Embedded, "bad": Failed, "fine": Embedded}
    assert len(ends) == 3
