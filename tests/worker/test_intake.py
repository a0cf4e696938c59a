"""Prompts and grammars are prepared beside the steps, and none holds up another."""

import json
import resource
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from axion_llm.engine import grammars, trial
from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.constraint import Constraint
from axion_llm.engine.engine import Engine
from axion_llm.errors import BadRequest, Overloaded
from axion_llm.worker import intake as intake_module
from axion_llm.worker.intake import Intake
from axion_llm.worker.messages import Accepted, Generate, Grammar, Load
from tests.engine.driver import request
from tests.models_on_disk import smollm2_path

LONG = "word " * 2000
SLOW = Grammar("regex", "slow")
PATTERNS = [{"type": "string", "pattern": f".*{chr(97 + i % 26)}.{{8}}{chr(97 + i // 26)}"} for i in range(200)]
HARD = Grammar("json_schema", json.dumps({"allOf": PATTERNS}), param="there")


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaModel]:
    model = LlamaModel(Load("smollm2", str(smollm2_path()), n_ctx=4096, n_seq_max=8), num_threads=1)
    yield model
    model.close()


class SlowEngine(Engine):
    """Compiles the regular expression `slow` when it is told to."""

    def __init__(self, model: LlamaModel) -> None:
        super().__init__(model)
        self.may_compile = threading.Event()

    def compile(self, request: Generate, is_wanted: Callable[[], bool] = lambda: True) -> Constraint | None:
        while request.grammar and request.grammar.source == "slow" and is_wanted():
            if self.may_compile.wait(0.05):
                break
        return super().compile(request, is_wanted)


@pytest.fixture
def engine(model: LlamaModel) -> Iterator[SlowEngine]:
    engine = SlowEngine(model)
    yield engine
    engine.may_compile.set()


@pytest.fixture
def intake(engine: SlowEngine) -> Iterator[Intake]:
    intake = Intake(engine)
    yield intake
    engine.may_compile.set()
    intake.close()


def collect(intake: Intake, count: int, seconds: float = 60) -> dict[str, Accepted | Exception | None]:
    found: dict[str, Accepted | Exception | None] = {}
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline
        for one, hand_over in intake.accepted():
            try:
                found[one.request_id] = hand_over()
            except (BadRequest, Overloaded) as error:
                found[one.request_id] = error
        time.sleep(0.002)
    return found


def test_a_short_prompt_is_accepted_at_once(intake: Intake) -> None:
    accepted = intake.take(request("a", "Hi"))
    assert isinstance(accepted, Accepted) and accepted.prompt_tokens > 0


def test_a_long_prompt_comes_later_and_in_order(intake: Intake) -> None:
    assert [intake.take(request(name, text)) for name, text in (("a", LONG), ("b", "Hi"))] == [None, None]
    assert [r.request_id for r in intake.waiting] == ["a", "b"]
    assert list(collect(intake, 2)) == ["a", "b"] and not intake.waiting


def test_a_slow_grammar_holds_up_nobody(intake: Intake, engine: SlowEngine) -> None:
    assert intake.take(request("slow", "Hi", grammar=SLOW)) is None
    assert isinstance(intake.take(request("plain", "Hi")), Accepted)
    assert intake.take(request("quick", "Hi", grammar=Grammar("regex", "quick"))) is None
    assert isinstance(collect(intake, 1)["quick"], Accepted)
    engine.may_compile.set()
    assert isinstance(collect(intake, 1)["slow"], Accepted)
    assert isinstance(intake.take(request("again", "Hi", grammar=SLOW)), Accepted), "known now: no thread for it"


def test_a_grammar_that_does_not_compile_is_a_bad_request(intake: Intake) -> None:
    intake.take(request("bad", "Hi", grammar=Grammar("regex", "(", param="there")))
    error = collect(intake, 1)["bad"]
    assert isinstance(error, BadRequest) and error.param == "there"
    intake.take(request("optional", "Hi", grammar=Grammar("regex", "(", is_optional=True)))
    assert isinstance(collect(intake, 1)["optional"], Accepted)


def test_one_tenants_grammars_do_not_hold_up_anothers(
    intake: Intake, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "GRAMMAR_WAIT_SECONDS", 0.05)
    names = [f"slow{i}" for i in range(intake_module.GRAMMAR_LANES_OF_TENANT)]
    for name in [*names, "behind"]:
        intake.take(request(name, "Hi", grammar=SLOW, tenant="eve"))
    intake.take(request("alice", "Hi", grammar=Grammar("regex", "quick"), tenant="alice"))
    found = collect(intake, 2)
    assert isinstance(found["alice"], Accepted)
    assert isinstance(found["behind"], Overloaded), "it had no turn at all: not its fault"
    engine.may_compile.set()
    assert all(isinstance(end, Accepted) for end in collect(intake, len(names)).values())


def children() -> set[int]:
    """Of this process; in a whole run other tests' servers are among them."""
    return {child.pid for child in psutil.Process().children()}


@pytest.mark.parametrize(
    "limits", [trial.Limits(1, 1 << 30, 60.0), trial.Limits(60, 16 << 20, 60.0)], ids=["time", "memory"]
)
def test_a_grammar_that_takes_too_much_is_really_ended(
    intake: Intake, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch, limits: trial.Limits
) -> None:
    engine.grammars.constraint(Grammar("regex", "first"))  # which brings the vocabulary into its form
    monkeypatch.setattr(grammars, "LIMITS", limits)
    before, others = resource.getrusage(resource.RUSAGE_SELF).ru_utime, children()
    intake.take(request("hard", "Hi", grammar=HARD))
    intake.take(request("easy", "Hi", grammar=Grammar("regex", "easy")))
    found = collect(intake, 2, 60)
    assert isinstance(found["easy"], Accepted)
    error = found["hard"]
    assert isinstance(error, BadRequest) and "to compile" in error.message and error.param == "there"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 1.0, "it has not been compiled here"
    assert children() == others


def test_a_grammar_that_nobody_waits_for_is_ended(intake: Intake) -> None:
    others = children()
    intake.take(request("left", "Hi", grammar=HARD))
    deadline = time.monotonic() + 20
    while children() == others:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    intake.cancel("left")
    assert collect(intake, 1, 20) == {"left": None}
    assert children() == others


def test_a_cancelled_request_is_not_handed_over(intake: Intake, engine: SlowEngine) -> None:
    intake.take(request("gone", "Hi", grammar=SLOW))
    intake.cancel("gone")
    intake.cancel("unknown")
    engine.may_compile.set()
    assert collect(intake, 1) == {"gone": None}
    assert not engine.has_work
