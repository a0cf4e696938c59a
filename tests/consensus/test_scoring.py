"""Scores from collected answers: intervals, paired tests, strategies over identical answers; and the weights file."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from axion_llm.consensus.items import item_of
from axion_llm.consensus.scoring import Collected, compare, expert_scores, foretell, mcnemar, wilson
from axion_llm.consensus.weights import Score, Weights
from axion_llm.consensus.weights_file import WeightsFile, read_weights, write_weights
from axion_llm.errors import ConfigError
from tests.consensus.closed_forms import majority_accuracy


def collected(accuracies: dict[str, float], num_items: int, num_samples: int = 1) -> list[Collected]:
    """Experts that are right independently of each other, and all wrong in the same way."""
    draw = random.Random(1)
    found = []
    for _ in range(num_items):
        answers = {
            expert: ["7" if draw.random() < p else "8" for _ in range(num_samples)] for expert, p in accuracies.items()
        }
        found.append(Collected(item_of("What is 3 + 4?", "7", "math"), answers))
    return found


def test_wilson() -> None:
    score = wilson(8, 10)
    assert (score.low, score.high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
    assert wilson(0, 0).low == 0.0
    assert wilson(10, 10).low < 1 and wilson(10, 10).high == pytest.approx(1)


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)


def test_expert_scores_by_domain() -> None:
    scores = expert_scores(collected({"a": 0.9, "b": 0.4}, 400))
    assert scores["a"]["math"].low <= 0.9 <= scores["a"]["math"].high
    assert scores["b"]["all"].num_items == 400


def test_a_vote_of_three_equals_the_closed_form() -> None:
    """Equal experts get nearly equal weights, so the vote is Condorcet's majority."""
    best, rows = compare(collected({"a": 0.7, "b": 0.7, "c": 0.7}, 1500))
    by_name = {row.name: row for row in rows}
    assert by_name["vote"].score.accuracy == pytest.approx(majority_accuracy(0.7, 3), abs=0.035)
    assert by_name["vote"].num_gained > by_name["vote"].num_lost
    assert by_name["vote"].p_value < 0.01
    assert by_name["vote"].calls < 3, "a vote that is decided makes no third call"
    assert best in ("a", "b", "c")


def test_self_consistency_by_the_closed_form() -> None:
    _, rows = compare(collected({"a": 0.6}, 1500, num_samples=5))
    row = {row.name: row for row in rows}["self"]
    assert row.score.accuracy == pytest.approx(majority_accuracy(0.6, 5), abs=0.04)
    assert {row.name for row in rows} == {"a", "self"}, "one expert alone makes no vote"


def test_weights_are_learnt_on_the_other_half_only() -> None:
    """Answers of one half cannot raise the weight that they are judged with."""
    items = collected({"a": 0.5, "b": 0.5}, 200)
    _, rows = compare(items)
    assert {row.name: row for row in rows}["vote"].score.accuracy < 0.62


def test_what_a_plurality_will_do_is_foretold_from_other_samples() -> None:
    """Items of which half are easy and half are hard: the plurality gains on the ones and loses on the others."""
    easy, hard = collected({"a": 0.7}, 300, num_samples=18), collected({"a": 0.3}, 300, num_samples=18)
    told = foretell([*easy, *hard], "a")
    expected = (majority_accuracy(0.7, 9) + majority_accuracy(0.3, 9)) / 2
    assert told.seen == pytest.approx(expected, abs=0.05)
    assert told.foretold == pytest.approx(told.seen, abs=0.05)
    assert told.single == pytest.approx(0.5, abs=0.03)
    assert told.num_gained > 40 and told.num_lost > 40
    assert told.num_open > 400


# ---- the file


def weights() -> Weights:
    return Weights(
        {"a": {"all": Score(70, 100, 0.6, 0.78), "math": Score(9, 10, 0.6, 0.98)}}, {"vote": {"all": Score(8, 10)}}
    )


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weights.json"
    write_weights(path, weights(), {"items": 110})
    assert read_weights(path) == weights()
    assert json.loads(path.read_text())["about"] == {"items": 110}


def test_a_new_file_is_taken_up_and_a_broken_one_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "weights.json"
    file = WeightsFile(path)
    assert file() == Weights()
    write_weights(path, weights(), {})
    assert file() == weights()
    path.write_text("{")
    os.utime(path, (1, 1))
    assert file() == Weights()
    assert "no weights file" in caplog.text


def test_another_version(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"version": 99}')
    with pytest.raises(ConfigError, match="calibrate anew"):
        read_weights(path)


def test_a_domain_that_was_not_measured_takes_the_sum() -> None:
    known = weights()
    assert known.weight("a", "code") == known.weight("a", "all") != known.weight("a", "math")
    assert known.weight("nobody", "math", prior=0.7) == 0.7
