"""Whatever a grammar allows and nothing else comes out: greedy, sampled, guessed, forced, alone and in a batch."""

import json
import re

import jsonschema
import pytest

from axion_llm.api.structured import JSON_STYLE
from axion_llm.engine.engine import Engine
from axion_llm.engine.pacing import Pacing
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Failed, Finished, Generate, Grammar, GrammarKind, Sampling
from tests.engine.driver import Seen, note, request

PROMPT = "<|im_start|>user\nDescribe Bob as JSON.<|im_end|>\n<|im_start|>assistant\n"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def schema(value: dict[str, object]) -> Grammar:
    return Grammar("json_schema", json.dumps({**value, "x-guidance": JSON_STYLE}))


def run(engine: Engine, *requests: Generate) -> dict[str, Seen]:
    for r in requests:
        engine.add(r, engine.tokenize(r), engine.compile(r))
    seen: dict[str, Seen] = {}
    while engine.has_work:
        for event in engine.step():
            note(seen, event)
    return seen


def one(engine: Engine, grammar: Grammar | None, max_tokens: int = 100, **options: object) -> Seen:
    return run(engine, request("one", PROMPT, max_tokens, grammar=grammar, **options))["one"]


def reason(seen: Seen) -> str:
    assert isinstance(seen.end, Finished), seen.end
    return seen.end.reason


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampling", ["greedy", "plain", "filtered"])
def test_the_output_satisfies_the_schema(engine: Engine, sampling: str, seed: int) -> None:
    how = {
        "greedy": Sampling(temperature=0, repeat_penalty=1.0 + seed / 10),
        "plain": Sampling(temperature=1.5, seed=seed),
        "filtered": Sampling(temperature=1.5, seed=seed, top_k=40, top_p=0.9, min_p=0.01, presence_penalty=0.5),
    }[sampling]
    seen = one(engine, schema(PERSON), sampling=how)
    jsonschema.validate(json.loads(seen.text), PERSON)
    assert reason(seen) == "stop"


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        ("regex", "(yes|no), [a-z]{3,5}!", "(yes|no), [a-z]{3,5}!"),
        ("grammar", 'start: "a" NUMBER ("+" NUMBER)~2 ";"\nNUMBER: /[0-9]{1,2}/', r"a\d{1,2}(\+\d{1,2}){2};"),
        ("grammar", 'root ::= "<" [x-z] [x-z] ">"', "<[x-z]{2}>"),
    ],
)
def test_regular_expressions_and_grammars(engine: Engine, kind: GrammarKind, source: str, pattern: str) -> None:
    for seed in range(3):
        seen = one(engine, Grammar(kind, source), sampling=Sampling(temperature=2.0, seed=seed))
        assert re.fullmatch(pattern, seen.text), seen.text
        assert reason(seen) == "stop"


def test_an_output_that_is_cut_off_says_so(engine: Engine) -> None:
    seen = one(engine, schema(PERSON), max_tokens=9)
    assert reason(seen) == "length"
    assert seen.text.startswith('{"name": "')


def test_the_end_comes_only_where_the_grammar_allows_it(engine: Engine) -> None:
    """A bias that makes a free model stop at once."""
    ends = {t: 100.0 for t in range(17) if engine.model.is_end(t)}
    assert one(engine, None, sampling=Sampling(temperature=0, logit_bias=ends)).text == ""
    seen = one(engine, schema(PERSON), sampling=Sampling(temperature=0, logit_bias=ends))
    jsonschema.validate(json.loads(seen.text), PERSON)


def test_a_complete_output_ends_also_when_the_end_token_is_ignored(engine: Engine) -> None:
    seen = one(engine, Grammar("regex", "[ab]{4}"), ignore_eos=True)
    assert (len(seen.text), reason(seen)) == (4, "stop")


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_guesses_and_log_probabilities_do_not_change_the_text(engine: Engine, temperature: float) -> None:
    items = {"type": "array", "items": PERSON, "minItems": 3, "maxItems": 3}
    how = Sampling(temperature=temperature, seed=3)
    plain, guessed, with_logprobs = (
        one(engine, schema(items), max_tokens=300, sampling=how, **options)  # type: ignore[arg-type]
        for options in ({}, {"speculation": "ngram"}, {"top_logprobs": 2})
    )
    assert plain.text == guessed.text == with_logprobs.text
    assert len(json.loads(plain.text)) == 3
    assert b"".join(t.piece for t in with_logprobs.logprobs).decode() == plain.text
    if temperature == 0:  # what is drawn at 1.2 is another text on another CPU, perhaps one that repeats nothing
        assert engine.counters.num_accepted_tokens > 0


def test_forced_tokens_are_computed_in_one_step(engine: Engine) -> None:
    seen = one(engine, Grammar("regex", "a sentence that is wholly known beforehand, word by word"))
    assert isinstance(seen.end, Finished)
    assert engine.counters.num_steps <= 3 < 10 < seen.end.completion_tokens


def test_forced_tokens_do_not_hold_others_up(engine: Engine) -> None:
    """Beside seven streams the kernels' eight columns are taken: the text comes token by token, and is the same."""
    known = request(
        "b", PROMPT, 60, grammar=Grammar("regex", "a sentence that is wholly known beforehand, word by word")
    )
    alone = run(engine, known)["b"]
    others = [request(f"p{i}", PROMPT, 200, ignore_eos=True) for i in range(7)]
    for r in others:
        engine.add(r, engine.tokenize(r))
    seen: dict[str, Seen] = {}
    while len(seen) < len(others):
        for event in engine.step():
            note(seen, event)
    engine.add(known, engine.tokenize(known), engine.compile(known))
    num_steps = 0
    while "b" not in seen or seen["b"].end is None:
        for event in engine.step():
            note(seen, event)
        num_steps += "b" in seen
    assert all(seen[r.request_id].end is None for r in others)
    for r in others:
        engine.cancel(r.request_id)
    assert seen["b"].text == alone.text
    assert isinstance(alone.end, Finished)
    assert num_steps >= alone.end.completion_tokens - 1


@pytest.mark.parametrize(("num_decodes", "spare"), [(2, 4), (6, 2), (7, 1), (8, 0), (9, 4)])
def test_how_many_tokens_a_step_takes_along(num_decodes: int, spare: int) -> None:
    assert Pacing(decode_seconds=0.02, token_seconds=0.0005).spare_tokens(num_decodes) == spare
    assert Pacing(decode_seconds=0.02).spare_tokens(num_decodes) == 0


def test_others_in_the_batch_are_not_constrained(engine: Engine) -> None:
    def make() -> list[Generate]:
        plain = [request(f"p{i}", PROMPT, 30, sampling=Sampling(seed=i)) for i in range(2)]
        bound = [
            request(f"b{i}", PROMPT, 60, grammar=schema(PERSON), sampling=Sampling(seed=i), speculation="ngram")
            for i in range(2)
        ]
        return [plain[0], bound[0], plain[1], bound[1]]

    together = run(engine, *make())
    for r in make():
        assert run(engine, r)[r.request_id].text == together[r.request_id].text
    for i in range(2):
        jsonschema.validate(json.loads(together[f"b{i}"].text), PERSON)


def test_a_trigger_binds_what_follows_it(engine: Engine) -> None:
    free = one(engine, None, max_tokens=30)
    trigger = free.text.split()[2]
    before = free.text[: free.text.index(trigger)]
    bound = one(engine, Grammar("regex", "[^0-9]?[0-9]{3}", trigger=trigger), max_tokens=30)
    assert re.fullmatch(re.escape(before + trigger) + "[^0-9]?[0-9]{3}", bound.text), bound.text
    never = one(engine, Grammar("regex", "[0-9]{3}", trigger="\0"), max_tokens=30)
    assert never.text == free.text


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("json_schema", '{"type": "strin"}', "strin"),
        ("json_schema", '{"$ref": "#/nowhere"}', "nowhere"),
        ("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}', "minimum"),
        ("json_schema", '{"not": {}}', "not"),
        ("regex", "(a", "regex parse error"),
        ("regex", "(?=a)b", "look-around"),
        ("grammar", "start: missing", "missing"),
        ("grammar", "root ::= (", "grammar"),
    ],
)
def test_what_does_not_compile_is_told(engine: Engine, kind: GrammarKind, source: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        engine.grammars.constraint(Grammar(kind, source, param="there"))
    assert caught.value.param == "there"
    assert "\n" not in caught.value.message


def test_a_grammar_is_compiled_once(engine: Engine) -> None:
    grammar = Grammar("regex", "x+y")
    assert not engine.grammars.is_known(grammar)
    first, second = engine.grammars.constraint(grammar), engine.grammars.constraint(grammar)
    assert engine.grammars.is_known(grammar)
    first.matcher.consume_tokens(engine.model.tokenize("xy", add_special=False, parse_special=False))
    assert first.is_complete and not second.is_complete


def test_a_grammar_that_grows_without_end_ends_the_request_and_nothing_else(engine: Engine) -> None:
    """Every further letter has more derivations than the one before."""
    no_end = Sampling(temperature=0, logit_bias={t: -100.0 for t in range(17) if engine.model.is_end(t)})
    hard = Grammar("grammar", 'start: s\ns: s s | s s s | "a" | "a" "a"')
    seen = run(engine, request("hard", PROMPT, 2000, grammar=hard, sampling=no_end), request("plain", PROMPT, 20))
    assert isinstance(seen["plain"].end, Finished)
    assert isinstance(seen["hard"].end, Failed)
    assert seen["hard"].end.code == "invalid_value" and "cannot be followed" in seen["hard"].end.message
    assert set(seen["hard"].text) == {"a"}
