"""Grammars with a SentencePiece vocabulary, as Mistral's and Gemma's: spaces as ▁, bytes as tokens, control tokens."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from gguf import GGUFWriter

from axion_llm.api.structured import JSON_STYLE
from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.engine import Engine
from axion_llm.worker.messages import Finished, Generate, Grammar, Load, Sampling
from tests import factory
from tests.engine.driver import Seen, note, request

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
LETTERS = '▁abcdefghijklmnopqrstuvwxyz0123456789{}[]":,.-'
WORDS = ["▁a", "▁the", "th", "the", "na", "name", '":', '▁"', '{"', "▁{", '▁{"', ',▁"', "er", "in", "▁in", "12"]
TOKENS: list[tuple[str, int]] = [
    ("<unk>", UNKNOWN),
    ("<s>", CONTROL),
    ("</s>", CONTROL),
    ("[TOOL_CALLS]", CONTROL),
    *((f"<0x{byte:02X}>", BYTE) for byte in range(256)),
    *((text, NORMAL) for text in dict.fromkeys([*WORDS, *LETTERS])),
]


def _add_vocabulary(writer: GGUFWriter, chat_template: str | None) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in TOKENS])
    writer.add_token_types([kind for _, kind in TOKENS])
    writer.add_token_scores([-float(i) / 100 for i in range(len(TOKENS))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path: Path = tmp_path_factory.mktemp("spm") / "spm.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "_vocabulary", lambda: {"tokenizer.ggml.tokens": TOKENS})
        patch.setattr(factory, "_add_vocabulary", _add_vocabulary)
        factory.write_tiny_gguf(path, "llama")
    model = LlamaModel(Load("spm", str(path), n_ctx=1024, n_seq_max=4), num_threads=1)
    yield Engine(model)
    model.close()


def run(engine: Engine, one: Generate) -> Seen:
    engine.add(one, engine.tokenize(one), engine.compile(one))
    seen: dict[str, Seen] = {}
    while engine.has_work:
        for event in engine.step():
            note(seen, event)
    return seen["r"]


PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
def test_the_output_satisfies_the_schema(engine: Engine, seed: int) -> None:
    grammar = Grammar("json_schema", json.dumps({**PERSON, "x-guidance": JSON_STYLE}))
    texts = []
    for more in ({}, {"top_logprobs": 0}):
        one = request("r", "the name", 100, grammar=grammar, sampling=Sampling(temperature=1.0, seed=seed), **more)
        seen = run(engine, one)
        assert isinstance(seen.end, Finished) and seen.end.reason == "stop"
        jsonschema.validate(json.loads(seen.text), PERSON)
        texts.append(seen.text)
    assert texts[0] == texts[1]


def test_forced_text_has_no_space_that_the_tokenizer_likes_to_add(engine: Engine) -> None:
    before = engine.counters.num_forced_tokens
    seen = run(engine, request("r", "a", 60, grammar=Grammar("regex", "name: the inner name, the end")))
    assert seen.text == "name: the inner name, the end"
    assert engine.counters.num_forced_tokens - before > 5


def test_a_control_token_is_a_trigger_when_it_is_shown(engine: Engine) -> None:
    """The model is made to say it by a bias."""
    trigger = next(i for i, (text, _) in enumerate(TOKENS) if text == "[TOOL_CALLS]")
    grammar = Grammar("regex", r" ?\[12\]", trigger="[TOOL_CALLS]")
    how = Sampling(temperature=0, logit_bias={trigger: 100.0})
    seen = run(engine, request("r", "a", 20, grammar=grammar, shown=["[TOOL_CALLS]"], sampling=how))
    assert seen.text in ("[TOOL_CALLS][12]", "[TOOL_CALLS] [12]")
    hidden = run(engine, request("r", "a", 3, sampling=how))
    assert hidden.text == ""
