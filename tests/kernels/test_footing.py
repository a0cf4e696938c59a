"""Where to stand after a probe, and what is remembered of it."""

import json
from dataclasses import replace
from pathlib import Path

from axion_llm.kernels import footing as footings
from axion_llm.kernels.footing import Footing, Probe, step_down

KEY = ("build", "cpu")


def test_a_kernel_that_ends_the_process_goes_alone() -> None:
    below = step_down(Footing(), Probe(ended_by="SIGILL", at="rope"), 7.0)
    assert below == Footing("all", ("rope",), "rope ended the process (SIGILL)", 7.0)


def test_so_do_all_that_are_wrong() -> None:
    below = step_down(Footing(without=("rope",)), Probe(wrong=("glu", "rope", "soft_max")), 7.0)
    assert below and below.without == ("rope", "glu", "soft_max")
    assert below.why == "glu, soft_max gave wrong numbers"


def test_where_the_model_ends_it_the_next_rung_is_tried() -> None:
    seen = [Footing()]
    while below := step_down(seen[-1], Probe(ended_by="SIGSEGV", at="model"), 7.0):
        seen.append(below)
    assert [footing.rung for footing in seen] == ["all", "upstream", "no_repack", "baseline"]


def test_a_kernel_blamed_twice_is_not_to_blame() -> None:
    below = step_down(Footing(without=("rope",)), Probe(ended_by="SIGILL", at="rope"), 7.0)
    assert below and below.rung == "upstream"


def test_nor_are_four_one_after_the_other() -> None:
    below = step_down(Footing(without=("a", "b", "c")), Probe(ended_by="SIGILL", at="d"), 7.0)
    assert below and (below.rung, below.without) == ("upstream", ())


def test_a_process_that_ends_before_any_kernel_goes_a_rung_down() -> None:
    below = step_down(Footing(), Probe(ended_by="SIGILL", at=""), 7.0)
    assert below and below.rung == "upstream"


def test_the_file_holds_several_cpus_of_one_build(tmp_path: Path) -> None:
    path = tmp_path / "below" / "kernels.json"
    first, second = Footing("baseline", why="x"), Footing(without=("rope",), is_tested=True)
    footings.write(path, KEY, first)
    footings.write(path, ("build", "other"), second)
    assert footings.read(path, KEY) == first
    assert footings.read(path, ("build", "other")) == second
    assert footings.read(path, ("newer build", "cpu")) == Footing()
    footings.write(path, ("newer build", "cpu"), replace(second, why="y"))
    assert footings.read(path, KEY) == Footing()
    assert [p.name for p in path.parent.iterdir()] == ["kernels.json"]


def test_a_damaged_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    for text in ("", "[]", "{}", '{"build": "build", "cpus": {"cpu": {"rung": "high"}}}', "\0"):
        path.write_text(text)
        assert footings.read(path, KEY) == Footing()
        footings.write(path, KEY, Footing("upstream"))
        assert json.loads(path.read_text())["cpus"]["cpu"]["rung"] == "upstream"


def test_it_says_in_words_what_it_is() -> None:
    assert str(Footing()) == "our kernels"
    assert str(Footing(without=("rope", "glu"))) == "our kernels without rope, glu"
    assert str(Footing("baseline")) == "plain code for any CPU"
