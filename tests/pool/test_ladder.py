"""What a service does when a worker ended at an instruction of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from axion_llm.config import Settings
from axion_llm.kernels.footing import Footing, Probe
from axion_llm.pool import ladder as ladders
from axion_llm.pool.ladder import Ladder, read_probe

WELL = Probe(at="model")
Make = Callable[..., Ladder]


class Machine:
    """Answers probes: what it cannot compute with ends them."""

    def __init__(self) -> None:
        self.bad: set[str] = set()  # kernels, or rungs
        self.probes: list[Footing] = []

    async def probe(self, footing: Footing, model: Path | None) -> Probe:
        self.probes.append(footing)
        await asyncio.sleep(0)
        if footing.rung in self.bad:
            return Probe(ended_by="SIGILL", at="model")
        bad = self.bad - set(footing.without) - {"upstream", "no_repack"} if footing.rung == "all" else set()
        return Probe(ended_by="SIGILL", at=min(bad)) if bad else WELL


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def make(machine: Machine, tmp_path: Path) -> Make:
    def new() -> Ladder:
        return Ladder(Settings(kernels_file=tmp_path / "kernels.json"), lambda: None, machine.probe)

    return new


async def test_a_broken_model_takes_nothing_from_the_others(make: Make, machine: Machine) -> None:
    ladder = make()
    assert not await ladder.after_fault(ladder.footing)
    assert ladder.footing == Footing()
    assert not await ladder.after_fault(ladder.footing)
    assert len(machine.probes) == 1, "it came through a moment ago"


async def test_kernels_go_one_by_one_and_a_later_start_knows(make: Make, machine: Machine) -> None:
    machine.bad = {"rope", "glu"}
    ladder = make()
    assert await ladder.after_fault(ladder.footing)
    assert ladder.footing.without == ("glu", "rope")
    assert make().footing == ladder.footing
    assert ladder.worker_environment()["AXION_KERNELS"].endswith("-glu,-rope")


async def test_rungs_down_to_the_plain_library(make: Make, machine: Machine) -> None:
    machine.bad = {"all", "upstream", "no_repack"}
    ladder = make()
    assert await ladder.after_fault(ladder.footing)
    assert ladder.footing.rung == "baseline"
    environment = ladder.worker_environment()
    assert (environment["AXION_RUNG"], environment["AXION_KERNELS"]) == ("baseline", "off")
    assert ladder.worker_options() == []


async def test_nothing_left_is_said_and_ends(make: Make, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.bad = {"all", "upstream", "no_repack", "baseline"}
    ladder = make()
    assert not await ladder.after_fault(ladder.footing)
    assert "does not load in any way" in caplog.text


async def test_of_several_that_ended_one_finds_out(make: Make, machine: Machine) -> None:
    machine.bad = {"rope"}
    ladder = make()
    before = ladder.footing
    assert all(await asyncio.gather(*(ladder.after_fault(before) for _ in range(3))))
    assert len(machine.probes) == 2


def test_a_self_test_is_made_once(make: Make) -> None:
    ladder = make()
    assert ladder.worker_options() == ["--test-kernels"]
    assert not ladder.note_test([])
    assert ladder.worker_options() == []
    assert make().worker_options() == []


def test_what_a_self_test_found_is_taken_out_for_all(make: Make) -> None:
    ladder = make()
    assert ladder.note_test(["rope"])
    assert ladder.footing.without == ("rope",)
    assert ladder.footing.why == "rope gave wrong numbers"


def test_a_place_that_cannot_be_written_does_not_stop_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    ladder = Ladder(Settings(kernels_file=tmp_path / "file" / "kernels.json"), lambda: None, Machine().probe)
    assert ladder.note_test(["rope"])
    assert ladder.footing.without == ("rope",)
    assert "cannot be written" in caplog.text


def test_what_a_probe_said() -> None:
    lines = b'{"begin": ""}\n{"begin": "rope"}\nnoise\n{"kernel": "rope", "error": 3.0}\n{"begin": "model"}\n'
    assert read_probe(lines, 0) == Probe(("rope",), None, "model")
    assert read_probe(b'{"begin": ""}\n{"begin": "glu"}\n', -4) == Probe((), "SIGILL", "glu")
    assert read_probe(b"", 1).ended_by == "exit code 1"


async def test_a_real_probe_of_this_machine() -> None:
    """The libraries as they were built, and the embedded model."""
    from tests.models_on_disk import smollm2_path

    assert (await ladders.probe(Footing(), smollm2_path())).is_well
    assert (await ladders.probe(Footing("baseline"), smollm2_path())).is_well
