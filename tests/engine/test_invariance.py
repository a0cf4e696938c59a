"""The same answer at any load: a sequence's logits are bit-identical however it was computed.

Over the whole model, for all positions: alone or among others, its prompt cut anywhere, its prefix copied from
another sequence's cache, its cells scattered, with any number of threads. What fails here is an operation that
accumulates in an order that depends on its batch: upstream's attention does for an F16 cache (AXION_KERNELS=off).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from axion_llm.engine.binding import Batch, LlamaModel
from axion_llm.engine.engine import Engine
from axion_llm.worker.messages import KvType, Load
from tests.engine.driver import request as text_request
from tests.engine.driver import run
from tests.engine.random_load import RandomLoad, Sequence, differences
from tests.factory import ARCHITECTURES, write_tiny_gguf
from tests.models_on_disk import smollm2_path

KV_TYPES: list[KvType] = ["q8_0", "f16"]
LENGTH = 150  # of the sequence looked at: past two blocks of keys, and not a multiple of any tile


def _open(path: Path, kv_type: KvType) -> LlamaModel:
    return LlamaModel(Load("x", str(path), n_ctx=1536, n_seq_max=8, n_batch=256, kv_type=kv_type), num_threads=2)


@pytest.fixture(scope="module", params=KV_TYPES)
def real(request: pytest.FixtureRequest) -> Iterator[LlamaModel]:
    model = _open(smollm2_path(), request.param)
    yield model
    model.close()


@pytest.fixture(scope="module")
def load(real: LlamaModel) -> RandomLoad:
    return RandomLoad(real, random.Random(5))


@pytest.fixture(scope="module")
def reference(load: RandomLoad) -> Sequence:
    return load.alone(load.tokens(LENGTH))


@pytest.fixture(autouse=True)
def _as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "load" in request.fixturenames:
        load: RandomLoad = request.getfixturevalue("load")
        load.clear()
        load.model.set_threads(2)


def _check(reference: Sequence, seen: Sequence) -> None:
    found = differences(reference, seen)
    assert not found, f"{len(found)} of {len(seen.logits)} positions differ; (position, by how much): {found[:5]}"


@pytest.mark.parametrize("chunk", [1, 2, 7, 8, 9, 33, 128])
def test_prompt_cut_into_chunks(load: RandomLoad, reference: Sequence, chunk: int) -> None:
    sequence = Sequence(0, reference.tokens)
    while sequence.left:
        load.step([(sequence, min(chunk, sequence.left))])
    _check(reference, sequence)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads(load: RandomLoad, reference: Sequence, num_threads: int) -> None:
    load.model.set_threads(num_threads)
    _check(reference, load.alone(reference.tokens))
    sequence = Sequence(0, reference.tokens[:70])
    while sequence.left:
        load.step([(sequence, min(3, sequence.left))])
    _check(reference, sequence)


@pytest.mark.parametrize("num_others", [1, 2, 7])
def test_among_others(load: RandomLoad, reference: Sequence, num_others: int) -> None:
    sequence = Sequence(num_others, reference.tokens)
    others = [Sequence(i, load.tokens(load.rng.randint(1, 150))) for i in range(num_others)]
    load.together([sequence, *others])
    _check(reference, sequence)


@pytest.mark.parametrize("num_shared", [1, 31, 64, 149])
def test_prefix_from_another_sequence(load: RandomLoad, reference: Sequence, num_shared: int) -> None:
    source = Sequence(1, reference.tokens[:num_shared] + load.tokens(20))
    load.together([source, Sequence(2, load.tokens(60))])
    sequence = load.share(source, 5, reference.tokens, num_shared)
    load.model.truncate(2, 0)
    load.together([sequence, source])
    _check(reference, sequence)


def test_scattered_over_holes(load: RandomLoad, reference: Sequence) -> None:
    load.make_holes(7)
    sequence = Sequence(0, reference.tokens)
    load.together([sequence])
    _check(reference, sequence)


def test_neighbours_leave_while_it_grows(load: RandomLoad, reference: Sequence) -> None:
    """Cells come free in front of a sequence; its next tokens must not go there (patches/0002-kv-order.patch)."""
    sequence, others = Sequence(7, reference.tokens), [Sequence(i, load.tokens(40)) for i in range(7)]
    load.together(others)
    for other in others:
        load.step([(sequence, 21)])
        load.model.truncate(other.seq_id, 0)
    load.together([sequence])
    _check(reference, sequence)


def test_truncated_and_computed_again(load: RandomLoad, reference: Sequence) -> None:
    """As after a rejected draft, or when a chat goes on from an earlier turn."""
    sequence, other = Sequence(0, reference.tokens), Sequence(1, load.tokens(100))
    load.together([sequence, other])
    sequence.done = 40
    load.model.truncate(0, 40)
    load.together([sequence])
    _check(reference, sequence)


def _fill(model: LlamaModel, seq_id: int, start: int, count: int) -> None:
    """Tokens of a sequence that nobody looks at."""
    batch = Batch(model.n_batch)
    for at in range(start, start + count, model.n_batch):
        batch.clear()
        part = [20 + i % 1000 for i in range(at, min(at + model.n_batch, start + count))]
        batch.add(part, at, seq_id, num_outputs=0)
        assert model.decode(batch)


def test_no_cell_is_free_behind_it(load: RandomLoad, reference: Sequence) -> None:
    """The cells close ranks: those of the sequence move to the front, and what is free lies behind them."""
    model, begun = load.model, 40
    sequence = Sequence(0, reference.tokens)
    _fill(model, 1, 0, 600)
    load.step([(sequence, begun)])
    _fill(model, 2, 0, model.n_ctx - 600 - begun)
    model.truncate(1, 0)
    load.together([sequence])
    _check(reference, sequence)


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_a_sliding_window_that_has_gone_around(
    kv_type: KvType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cache smaller than the context, as llama.cpp can have it, cells left behind serve again, in order."""
    defaults = llama_cpp.llama_context_default_params

    def small() -> llama_cpp.llama_context_params:
        params = defaults()
        params.swa_full = False
        return params

    monkeypatch.setattr(llama_cpp, "llama_context_default_params", small)
    path = tmp_path / "gemma3.gguf"
    write_tiny_gguf(path, "gemma3")
    model = LlamaModel(Load("x", str(path), n_ctx=8192, n_seq_max=1, n_batch=256, kv_type=kv_type), num_threads=2)
    try:
        load = RandomLoad(model, random.Random(0))
        reference = load.alone(load.tokens(200))
        sequence, filled = Sequence(0, reference.tokens), 3300  # of 49 windows of 64, and a batch
        _fill(model, 1, 0, filled)
        while sequence.left:
            load.step([(sequence, min(sequence.left, load.rng.choice([1, 5, 30])))])
            _fill(model, 1, filled, 40)
            filled += 40
        _check(reference, sequence)
    finally:
        model.close()


def _scenario(load: RandomLoad, seed: int) -> None:
    """Everything at once: holes, threads, company, and prefixes taken from a sequence that is still growing."""
    load.rng.seed(seed)
    rng = load.rng
    tokens = load.tokens(rng.randint(2, 200))
    reference = load.alone(tokens)
    load.model.set_threads(rng.choice([1, 2, 3]))
    load.most = rng.choice([5, 64, 256])
    if rng.random() < 0.7:
        load.make_holes(rng.randint(2, 4))
    source = Sequence(0, tokens)
    others = [Sequence(i, load.tokens(rng.randint(1, 120))) for i in (1, 2)]
    while source.left and source.done < len(tokens) // 2:
        load.step([(source, min(source.left, rng.choice([1, 5, 40])))])
    seen = [source]
    if source.done:
        seen.append(load.share(source, 3, tokens, rng.randint(1, source.done)))
    load.together([*seen, *others])
    for sequence in seen:
        _check(reference, sequence)


@pytest.mark.parametrize("seed", range(4))
def test_random_loads(load: RandomLoad, seed: int) -> None:
    try:
        _scenario(load, seed)
    finally:
        load.most = load.model.n_batch


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_random_loads(load: RandomLoad, seed: int) -> None:
    test_random_loads(load, seed)


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture(arch: str, kv_type: KvType, tmp_path: Path) -> None:
    path = tmp_path / f"{arch}.gguf"
    write_tiny_gguf(path, arch)  # type: ignore[arg-type]
    model = _open(path, kv_type)
    load = RandomLoad(model, random.Random(0))
    try:
        for seed in range(3):
            _scenario(load, seed)
            load.clear()
    finally:
        model.close()


def test_answers_of_the_engine(real: LlamaModel) -> None:
    """The same through the scheduler: four requests at once."""
    engine = Engine(real)
    prompts = {f"r{i}": f"{i} " + "once upon a time there was a river " * (6 * i + 1) for i in range(4)}
    alone = {n: run(engine, text_request(n, p, 12, ignore_eos=True))[n].text for n, p in prompts.items()}
    together = run(engine, *[text_request(n, p, 12, ignore_eos=True) for n, p in prompts.items()])
    assert {n: seen.text for n, seen in together.items()} == alone
