"""Each stage of drawing a token against its definition, and the whole against llama.cpp's own chain."""

from __future__ import annotations

import ctypes
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.engine.binding import lib
from axion_llm.engine.sampler import COLUMNS, Sampler, draw_from_all, outside_nucleus, top_k
from axion_llm.worker.messages import Sampling

VOCABULARY = 5 * COLUMNS + 37


def logits(seed: int, size: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


@given(st.integers(0, 1000), st.integers(1, 700), st.sampled_from([40, COLUMNS, VOCABULARY]))
def test_top_k_gives_the_largest(seed: int, k: int, size: int) -> None:
    row = logits(seed, size)
    k = min(k, size)
    assert set(top_k(row, k)) == set(np.argsort(-row)[:k])


def test_top_k_takes_as_many_as_asked_when_all_are_equal() -> None:
    assert len(set(top_k(np.zeros(VOCABULARY, np.float32), 40))) == 40


@given(st.integers(0, 1000), st.floats(0.01, 0.999))
def test_a_nucleus_is_the_smallest_set_with_top_p(seed: int, top_p: float) -> None:
    p = np.exp(logits(seed, 300).astype(np.float64))
    p /= p.sum()
    inside = np.delete(np.arange(300), outside_nucleus(p, top_p))
    assert p[inside].sum() >= top_p
    assert p[inside].sum() - p[inside].min() < top_p
    assert p[inside].min() >= np.delete(p, inside).max(initial=0)


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_a_draw_from_all_is_where_the_distribution_function_says(seed: int, uniform: float) -> None:
    row = logits(seed)
    p = np.exp(row - row.max()).astype(np.float64)
    f = p.cumsum() / p.sum()
    token = draw_from_all(row, uniform)
    assert (f[token - 1] if token else 0) - 1e-6 <= uniform <= f[token] + 1e-6


def llama_cpp_keeps(row: np.ndarray, s: Sampling) -> dict[int, float]:
    """Probabilities that llama.cpp's chain leaves before its draw."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    if s.top_k:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(s.top_k))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(s.top_p, 1))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_min_p(s.min_p, 1))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(s.temperature))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(1))
    data = (lib.llama_token_data * len(row))(*((i, float(x), 0.0) for i, x in enumerate(row)))
    array = lib.llama_token_data_array(data, len(row), -1, False)
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    kept = {array.data[i].id: array.data[i].p for i in range(array.size)}
    lib.llama_sampler_free(chain)
    return kept


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, top_k=20),
        Sampling(temperature=1.3, top_p=0.6),
        Sampling(temperature=1.0, min_p=0.2),
        Sampling(temperature=0.8, top_k=30, top_p=0.8, min_p=0.05),
    ],
)
def test_draws_are_distributed_as_llama_cpps_own(sampling: Sampling) -> None:
    row = logits(5, 200)
    expected = llama_cpp_keeps(row, sampling)
    sampler = Sampler(sampling, [])
    num_draws = 4000
    counts = Counter(sampler.sample(row, int(row.argmax())) for _ in range(num_draws))
    assert set(counts) <= set(expected)
    for token, p in expected.items():
        assert abs(counts[token] / num_draws - p) < 5 * np.sqrt(p * (1 - p) / num_draws) + 1e-9


def test_penalties_are_those_of_openai_and_llama_cpp() -> None:
    row = np.array([2.0, -1.0, 1.0, 0.5], np.float32)
    sampler = Sampler(Sampling(temperature=0, repeat_penalty=2.0), [0, 1])
    assert np.allclose(sampler._adjusted(row), [1.0, -2.0, 1.0, 0.5])
    sampler = Sampler(Sampling(temperature=0, frequency_penalty=0.5, presence_penalty=0.25), [0, 0])
    assert [sampler.sample(row, 0) for _ in range(4)] == [0, 0, 2, 0], "the prompt does not count, two draws do"


@pytest.mark.parametrize(("window", "expected"), [(0, [2.0, 2.0, 2.0]), (1, [2.0, 2.0, 1.0]), (2, [2.0, 1.0, 1.0])])
def test_the_window_that_repeat_penalty_looks_back_on(window: int, expected: list[float]) -> None:
    sampler = Sampler(Sampling(temperature=0, repeat_penalty=2.0, repeat_last_n=window), [0, 1])
    sampler.remember(2)
    assert sampler._adjusted(np.full(3, 2.0, np.float32)).tolist() == expected


def test_one_seed_gives_one_sequence_of_draws() -> None:
    row = logits(9)
    draws = [[Sampler(Sampling(seed=seed), []).sample(row, 0) for _ in range(3)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("num_allowed", [1, 7, 600, 30_000])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(seed=1),
        Sampling(seed=1, top_k=40, top_p=0.9, min_p=0.01, frequency_penalty=1.0),
    ],
)
def test_only_what_a_mask_allows_is_drawn(sampling: Sampling, num_allowed: int) -> None:
    rng = np.random.default_rng(num_allowed)
    logits = rng.normal(size=49_152).astype(np.float32) * 3
    tokens = rng.choice(len(logits), num_allowed, replace=False)
    mask = np.zeros(len(logits), np.uint8)
    mask[tokens] = 1
    sampler, bits = Sampler(sampling, []), np.packbits(mask, bitorder="little")
    drawn = [sampler.sample(logits, int(logits.argmax()), bits) for _ in range(20)]
    assert set(drawn) <= set(tokens.tolist())
    if sampling.temperature == 0:
        assert set(drawn) == {int(tokens[logits[tokens].argmax()])}
