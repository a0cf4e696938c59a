"""What an earlier request left in the KV cache, and guesses from the text so far: the same text, in less time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.engine import Engine
from axion_llm.worker.messages import Finished, Load, Sampling
from tests.engine.driver import Seen, request, run
from tests.factory import write_tiny_gguf

SYSTEM = "You are a careful assistant. " * 20
LIST = "apple, pear, plum, cherry, grape, melon; " * 12


def finished(seen: Seen) -> Finished:
    assert isinstance(seen.end, Finished), seen.end
    return seen.end


class TestPrefix:
    def test_a_second_turn_computes_only_what_is_new(self, engine: Engine) -> None:
        first = run(engine, request("1", SYSTEM, 20, ignore_eos=True))["1"]
        second_prompt = SYSTEM + first.text + " And then?"
        second = run(engine, request("2", second_prompt, 20, ignore_eos=True))["2"]
        cached = finished(second).cached_tokens
        assert cached >= finished(first).prompt_tokens + 15
        engine.scheduler.cache.clear()
        again = run(engine, request("3", second_prompt, 20, ignore_eos=True))["3"]
        assert finished(again).cached_tokens == 0
        assert again.text == second.text

    def test_a_system_prompt_is_shared_by_requests_that_run_together(self, engine: Engine) -> None:
        prompts = [f"{SYSTEM} Question {i}: why?" for i in range(4)]
        alone = [run(engine, request("x", p, 12, ignore_eos=True))["x"].text for p in prompts]
        engine.scheduler.cache.clear()
        together = run(engine, *(request(str(i), p, 12, ignore_eos=True) for i, p in enumerate(prompts)))
        assert [together[str(i)].text for i in range(4)] == alone
        cached = sorted(finished(s).cached_tokens for s in together.values())
        assert cached[0] == 0 and cached[1] > 100, "the first computes it, the others wait for it and share"
        assert engine.stats().kv_used_tokens < 2 * finished(together["0"]).prompt_tokens

    def test_a_request_of_another_tenant_neither_shares_nor_waits(self, engine: Engine) -> None:
        """It is computed beside the first one as if that were not there."""
        prompt = SYSTEM + "What is the PIN?"
        asked = [request(name, prompt, 8, tenant=name, ignore_eos=True) for name in ("alice", "eve")]
        ends = [finished(s) for s in run(engine, *asked).values()]
        assert [end.cached_tokens for end in ends] == [0, 0]
        again = run(engine, *(request(f"{r.request_id}2", prompt, 8, tenant=r.tenant) for r in asked))
        assert all(finished(s).cached_tokens > 100 for s in again.values())

    def test_tenants_share_a_text_that_is_public(self, engine: Engine) -> None:
        def ask(name: str, text: str) -> int:
            one = request(name, SYSTEM + text, 8, tenant=name, public_chars=len(SYSTEM), ignore_eos=True)
            return finished(run(engine, one)[name]).cached_tokens

        shown = len(engine.model.tokenize(SYSTEM, True, True))
        assert ask("alice", "My PIN is 4711, keep it safe.") == 0
        assert shown - 2 <= ask("eve", "My PIN is 4711, keep it safe.") <= shown

    def test_what_is_kept_gives_way_to_what_runs(self, engine: Engine) -> None:
        for i in range(8):
            run(engine, request("x", f"{i} " + "word " * 900, 1))
        assert engine.stats().kv_cached_tokens > 3000
        assert finished(run(engine, request("x", "text " * 3000, 20, ignore_eos=True))["x"]).completion_tokens == 20
        assert engine.stats().num_preemptions == 0

    def test_a_failed_step_leaves_nothing_in_the_prefix_cache(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = engine.model.logits

        def poisoned(num_outputs: int):  # type: ignore[no-untyped-def]
            rows = real(num_outputs).copy()
            rows[:] = float("nan")
            return rows

        monkeypatch.setattr(engine.model, "logits", poisoned)
        run(engine, request("x", SYSTEM, 3))
        assert engine.stats().kv_used_tokens == 0


class TestGuesses:
    @pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(temperature=0.8, top_k=40, seed=11)])
    def test_the_text_is_the_same_as_without(self, engine: Engine, sampling: Sampling) -> None:
        prompts = [LIST, "Once upon a time", "def f(x):\n    return x\n\n" * 8]
        for prompt in prompts:
            plain = run(engine, request("x", prompt, 60, ignore_eos=True, sampling=sampling))["x"]
            guessed = run(engine, request("x", prompt, 60, ignore_eos=True, sampling=sampling, speculation="ngram"))[
                "x"
            ]
            assert guessed.text == plain.text
            assert finished(guessed).completion_tokens == 60

    def test_a_text_that_repeats_itself_takes_fewer_steps(self, engine: Engine) -> None:
        before = engine.stats()
        run(engine, request("x", LIST, 100, ignore_eos=True, speculation="ngram"))
        after = engine.stats()
        assert after.num_steps - before.num_steps < 50
        assert after.num_accepted_tokens > 50

    def test_nothing_is_guessed_unless_asked_for(self, engine: Engine) -> None:
        run(engine, request("x", LIST, 30))
        assert engine.stats().num_drafted_tokens == 0

    def test_the_end_of_a_text_inside_a_guess_is_the_end(self, engine: Engine) -> None:
        whole = run(engine, request("x", LIST, 40, ignore_eos=True))["x"].text
        stop = whole[len(whole) // 2 :][:6]
        seen = run(engine, request("x", LIST, 40, ignore_eos=True, stop=[stop], speculation="ngram"))["x"]
        assert seen.text == whole[: whole.index(stop)]
        limit = run(engine, request("x", LIST, 7, ignore_eos=True, speculation="ngram"))["x"]
        assert finished(limit).completion_tokens == 7


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Layers that look back over a sliding window only, as gemma3 has them."""
    path: Path = tmp_path_factory.mktemp("swa") / "gemma3.gguf"
    write_tiny_gguf(path, "gemma3")
    model = LlamaModel(Load("gemma3", str(path), n_ctx=2048, n_seq_max=4), num_threads=2)
    yield Engine(model)
    model.close()


def test_with_a_sliding_window_the_text_is_the_same_whatever_was_cached(windowed: Engine) -> None:
    long = "one two three four five six seven eight nine ten " * 12
    for prompt in (long, long + "eleven", long[:200] + "twelve", long):
        seen = run(windowed, request("x", prompt, 30, ignore_eos=True, speculation="ngram"))["x"]
        windowed.scheduler.cache.clear()
        fresh = run(windowed, request("x", prompt, 30, ignore_eos=True))["x"]
        assert seen.text == fresh.text
        run(windowed, request("x", long, 30, ignore_eos=True))


def test_graphs_are_used_again_in_nearly_all_decode_steps(engine: Engine) -> None:
    run(engine, *(request(str(i), f"Number {i} is", 120, ignore_eos=True) for i in range(8)))
    stats = engine.stats()
    assert stats.num_decode_graph_reuses / stats.num_decode_steps >= 0.9, "it is 0.95 and more over longer texts"
