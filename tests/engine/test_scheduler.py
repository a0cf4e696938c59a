"""The scheduler alone, over simulated cells: decodes first, nothing starves, the KV budget holds, all is given back."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axion_llm.engine.drafting import Drafter
from axion_llm.engine.pacing import FIRST_CHUNK, INTERACTIVE_SECONDS, Pacing
from axion_llm.engine.prefix_cache import PrefixCache
from axion_llm.engine.scheduler import Scheduler, Step
from axion_llm.engine.sequence import Sequence, Status
from axion_llm.worker.messages import Generate, Sampling
from tests.engine.cells import FakeCells

NUM_CELLS, MAX_RUNNING, N_BATCH = 600, 4, 128


def sequence(
    name: str, prompt: int | list[int], max_output: int, *, interactive: bool = False, arrival: float = 0.0
) -> Sequence:
    """A prompt given by its length shares nothing with the others."""
    tokens = [hash((name, i)) for i in range(prompt)] if isinstance(prompt, int) else list(prompt)
    request = Generate(name, "", Sampling(), interactive=interactive)
    return Sequence(request, tokens, len(tokens) + max_output, arrival)


class Simulation:
    """An engine without a model: time passes by the number of tokens, the next token is drawn from a generator."""

    TOKEN_SECONDS, STEP_SECONDS = 0.001, 0.005

    def __init__(self, *, really: int = NUM_CELLS, num_cells: int = NUM_CELLS, steps_per_decision: int = 1) -> None:
        self.kv = FakeCells()
        self.cache = PrefixCache(self.kv, 3 * MAX_RUNNING)
        self.scheduler = Scheduler(
            self.cache,
            num_cells=num_cells,
            max_running=MAX_RUNNING,
            n_batch=N_BATCH,
            steps_per_decision=steps_per_decision,
        )
        self.really = really  # cells that the cache takes, whatever it says
        self.now = 0.0
        self.rng = random.Random(1)
        self.ended: list[Sequence] = []

    def add(self, *sequences: Sequence) -> None:
        for s in sequences:
            self.scheduler.add(s)

    def end(self, s: Sequence) -> None:
        self.scheduler.end(s)
        self.ended.append(s)

    def step(self) -> Step:
        step = self.scheduler.schedule(self.now)
        check(self, step)
        self.now += self.STEP_SECONDS + self.TOKEN_SECONDS * step.num_tokens
        if self.kv.num_used + step.num_tokens > self.really:
            if not self.scheduler.shrink_to_fit():
                self.end(self.scheduler.running[0])  # alone and too large: the engine lets it fail
            return step
        for s in step.slices:
            tokens = s.sequence.tokens[s.start : s.start + s.count] + s.draft
            self.kv.compute(s.sequence.seq_id, s.start, tokens)
        spent = self.STEP_SECONDS + self.TOKEN_SECONDS * step.num_tokens
        self.scheduler.pacing.observe(step.num_decodes, step.num_prompt_tokens, spent)
        self.scheduler.commit(step)
        for s in step.slices:
            if s.wants_logits:
                self._draw(s.sequence, s.draft)
        return step

    def _draw(self, s: Sequence, draft: list[int]) -> None:
        accepted = self.rng.randint(0, len(draft))
        new = [*draft[:accepted], self.rng.randint(0, 3)]
        if len(draft) > accepted:
            self.kv.truncate(s.seq_id, s.num_computed + accepted)
        s.num_computed += accepted
        s.tokens += new
        if s.drafter:
            s.drafter.extend(new)
            s.drafter.report(len(draft), accepted)
        if s.is_full:
            self.end(s)

    def run(self) -> None:
        while self.scheduler.has_work:
            self.step()


def check(simulation: Simulation, step: Step) -> None:
    """What holds before every step."""
    scheduler, kv = simulation.scheduler, simulation.kv
    assert 0 < step.num_tokens <= N_BATCH
    assert kv.num_used == scheduler.cells_used
    if len(scheduler.running) > 1:
        assert scheduler.cells_used + step.num_tokens <= scheduler.num_cells
    computed = {id(s.sequence): s.count for s in step.slices}
    assert len(computed) == len(step.slices), "a sequence twice in one step"
    assert all(computed.get(id(s)) == 1 for s in scheduler.running if s.is_decoding), "a running stream was left out"
    assert len({s.seq_id for s in scheduler.running}) == len(scheduler.running) <= MAX_RUNNING
    for s in scheduler.running:
        assert kv.tokens(s.seq_id) == s.tokens[: s.num_computed]


def start_stream(simulation: Simulation) -> Sequence:
    stream = sequence("stream", 4, 500)
    simulation.add(stream)
    simulation.step()
    return stream


class TestOneStep:
    def test_decodes_come_first_and_a_prompt_gets_a_bounded_chunk(self) -> None:
        simulation = Simulation()
        start_stream(simulation)
        simulation.add(sequence("long", 400, 10))
        step = simulation.scheduler.schedule(0)
        assert [(s.sequence.request_id, s.count) for s in step.slices] == [("stream", 1), ("long", FIRST_CHUNK)]

    def test_chunks_grow_to_what_the_time_of_a_step_allows(self) -> None:
        simulation = Simulation()
        start_stream(simulation)
        simulation.add(sequence("long", 400, 10))
        simulation.scheduler.pacing.token_seconds = 0.0001
        assert simulation.scheduler.schedule(0).num_prompt_tokens == N_BATCH - 1
        simulation.scheduler.pacing.token_seconds = 0.0012  # 50 tokens in 60 ms
        assert simulation.scheduler.schedule(0).num_prompt_tokens == 48

    def test_alone_a_prompt_gets_the_whole_batch(self) -> None:
        simulation = Simulation()
        simulation.add(sequence("long", 400, 10))
        assert simulation.step().num_tokens == N_BATCH

    def test_only_the_last_chunk_of_a_prompt_wants_logits(self) -> None:
        simulation = Simulation()
        simulation.add(sequence("long", N_BATCH + 1, 10))
        first = simulation.scheduler.schedule(0)
        assert [s.num_outputs for s in first.slices] == [0]
        simulation.step()
        assert [s.num_outputs for s in simulation.scheduler.schedule(0).slices] == [1]

    def test_several_prompts_share_a_chunk_the_shortest_first(self) -> None:
        simulation = Simulation()
        simulation.add(sequence("long", 120, 4), sequence("short", 20, 4))
        step = simulation.step()
        assert [(s.sequence.request_id, s.count) for s in step.slices] == [("short", 20), ("long", 108)]


class TestOrder:
    def start(self, *waiting: Sequence) -> Simulation:
        """All places taken, then these arrive."""
        simulation = Simulation()
        simulation.add(*(sequence(f"busy{i}", 4, 400) for i in range(MAX_RUNNING)))
        simulation.step()
        simulation.scheduler.pacing.token_seconds = 0.001
        simulation.add(*waiting)
        return simulation

    def admitted(self, simulation: Simulation, now: float) -> str:
        before = set(simulation.scheduler.running)
        simulation.end(simulation.scheduler.running[0])
        simulation.scheduler.schedule(now)
        (new,) = set(simulation.scheduler.running) - before
        return new.request_id

    def test_interactive_requests_go_before_standard_ones(self) -> None:
        simulation = self.start(sequence("a", 40, 4), sequence("b", 40, 4, interactive=True))
        assert self.admitted(simulation, 0) == "b"

    def test_a_short_prompt_passes_a_long_one(self) -> None:
        simulation = self.start(sequence("long", 180, 4), sequence("short", 10, 4))
        assert self.admitted(simulation, 0) == "short"

    def test_but_not_one_that_has_waited_longer_than_it_is_longer(self) -> None:
        simulation = self.start(sequence("long", 180, 4), sequence("short", 10, 4, arrival=0.5))
        assert self.admitted(simulation, 0.5) == "long"

    def test_a_standard_request_overtakes_interactive_ones_in_the_end(self) -> None:
        late = INTERACTIVE_SECONDS + 1
        simulation = self.start(sequence("old", 10, 4), sequence("new", 10, 4, interactive=True, arrival=late))
        assert self.admitted(simulation, late) == "old"

    def test_a_second_step_of_decodes_needs_no_decision_but_an_interactive_request_does(self) -> None:
        simulation = Simulation(steps_per_decision=2)
        start_stream(simulation)
        simulation.add(sequence("standard", 4, 4))
        assert simulation.step().num_prompt_tokens == 0
        assert simulation.step().num_prompt_tokens == 4
        simulation.step()
        simulation.add(sequence("interactive", 4, 4, interactive=True))
        assert simulation.step().num_prompt_tokens == 4


class TestCells:
    def test_when_they_run_out_the_youngest_waits_with_its_tokens_kept(self) -> None:
        simulation = Simulation(num_cells=300, really=300)
        old, young = sequence("old", 20, 280), sequence("young", 20, 280)
        simulation.add(old, young)
        while young.status is not Status.WAITING or not young.num_output:
            simulation.step()
        assert old.status is Status.RUNNING and young.num_output > 50
        simulation.run()
        assert (old.num_output, young.num_output) == (280, 280)

    def test_a_standard_request_is_paused_before_an_interactive_one(self) -> None:
        simulation = Simulation(num_cells=300, really=300)
        standard, interactive = sequence("a", 20, 280), sequence("b", 20, 280, interactive=True)
        simulation.add(standard, interactive)
        while simulation.scheduler.num_preemptions == 0:
            simulation.step()
        assert (standard.status, interactive.status) == (Status.WAITING, Status.RUNNING)

    def test_what_is_only_kept_gives_way_before_anybody_is_paused(self) -> None:
        simulation = Simulation()
        for i in range(5):
            simulation.add(sequence(f"past{i}", 100, 1))
            simulation.run()
        assert simulation.cache.num_cells == 500
        simulation.add(sequence("a", 200, 90), sequence("b", 200, 90))
        simulation.run()
        assert simulation.scheduler.num_preemptions == 0

    def test_a_long_shared_beginning_is_counted_once(self) -> None:
        """Four requests of 400 tokens and more in 600 cells, since 390 are the same."""
        simulation = Simulation()
        system = list(range(390))
        simulation.add(sequence("first", [*system, 1], 5))
        simulation.run()
        later = [sequence(str(i), [*system, 5, i], 8) for i in range(4)]
        simulation.add(*later)
        simulation.step()
        assert len(simulation.scheduler.running) == 4
        assert [s.num_cached for s in later] == [390] * 4

    def test_one_of_two_equal_prompts_waits_for_the_other_and_shares_it(self) -> None:
        simulation = Simulation()
        twins = [sequence(str(i), list(range(300)), 5) for i in range(2)]
        simulation.add(*twins)
        simulation.run()
        assert sorted(s.num_cached for s in twins) == [0, 299]

    def test_an_ended_sequence_gives_its_place_back_exactly_once(self) -> None:
        simulation = Simulation()
        sequences = [sequence(str(i), 4, 4) for i in range(MAX_RUNNING + 1)]
        simulation.add(*sequences)
        simulation.step()
        for s in sequences:
            simulation.end(s)
        assert not simulation.scheduler.has_work
        assert simulation.scheduler.cells_used == simulation.cache.num_cells == simulation.kv.num_used


def test_guesses_are_made_while_few_decode_and_never_beyond_the_limit() -> None:
    simulation = Simulation()
    s = sequence("copy", [1, 2, 3, 4, 5, 6] * 8, 3)
    s.drafter = Drafter()
    s.drafter.extend(s.tokens)
    simulation.add(s)
    simulation.step()
    s.tokens[-1] = 1
    s.drafter = Drafter()
    s.drafter.extend(s.tokens)
    step = simulation.scheduler.schedule(0)
    assert step.slices[0].draft == [2], "two tokens are left: the next one, and a guess at the last"


@dataclass(frozen=True)
class Arrival:
    wait: int  # steps after the one before it
    prompt: int
    common: int  # tokens of a shared beginning
    output: int
    interactive: bool
    drafts: bool
    cancel: int  # steps until it is cancelled; 0: never

    def sequence(self, name: str, now: float) -> Sequence:
        tokens = [*range(self.common), *(hash((name, i)) for i in range(self.prompt))]
        s = sequence(name, tokens, self.output, interactive=self.interactive, arrival=now)
        if self.drafts:
            s.drafter = Drafter()
            s.drafter.extend(tokens)
        return s


arrivals = st.builds(
    Arrival,
    wait=st.integers(0, 30),
    prompt=st.integers(1, 400),
    common=st.sampled_from([0, 0, 30, 100, 150]),
    output=st.integers(1, 100),
    interactive=st.booleans(),
    drafts=st.booleans(),
    cancel=st.integers(0, 60),
)


def play(simulation: Simulation, plan: list[Arrival]) -> None:
    """Every request arrives when it should, and ends or is cancelled; `check` runs before every step."""
    alive: list[tuple[int, Sequence]] = []  # steps until it is cancelled
    pending = list(enumerate(plan))
    wait = 0
    for _ in range(500 * len(plan) + 1000):
        while pending and wait >= pending[0][1].wait:
            i, arrival = pending.pop(0)
            s = arrival.sequence(str(i), simulation.now)
            simulation.add(s)
            alive.append((arrival.cancel or 10**9, s))
            wait = 0
        wait += 1
        alive = [(left - 1, s) for left, s in alive if s.status is not Status.ENDED]
        for left, s in alive:
            if left == 0:
                simulation.end(s)
        if simulation.scheduler.has_work:
            simulation.step()
        elif not pending:
            break
    assert len(simulation.ended) == len(plan)
    assert not any(s.held or s.seq_id >= 0 for s in simulation.ended)
    assert simulation.cache.num_locked_cells == 0
    assert simulation.scheduler.cells_used == simulation.cache.num_cells == simulation.kv.num_used


@settings(max_examples=100, deadline=None)
@given(st.lists(arrivals, max_size=25), st.sampled_from([NUM_CELLS, NUM_CELLS, 300, 90]), st.sampled_from([1, 2]))
def test_every_request_ends_and_no_invariant_breaks(plan: list[Arrival], really: int, steps: int) -> None:
    play(Simulation(really=really, steps_per_decision=steps), plan)


@pytest.mark.long
def test_ten_thousand_random_arrivals() -> None:
    rng = random.Random(3)
    plan = [
        Arrival(
            wait=rng.randint(0, 30),
            prompt=int(rng.paretovariate(1) * 8) % 400 + 1,
            common=rng.choice([0, 0, 30, 100, 150]),
            output=rng.randint(1, 60),
            interactive=rng.random() < 0.5,
            drafts=rng.random() < 0.5,
            cancel=rng.choice([0, 0, 0, rng.randint(1, 200)]),
        )
        for _ in range(10_000)
    ]
    simulation = Simulation(steps_per_decision=2)
    play(simulation, plan)
    assert simulation.scheduler.num_preemptions < 10_000


def test_nothing_waits_much_longer_than_what_was_ahead_of_it() -> None:
    """A standard prompt against an endless stream of short interactive ones: it starts within its handicap."""
    simulation = Simulation()
    patient = sequence("patient", 300, 4)
    simulation.add(*(sequence(f"busy{i}", 4, 20, interactive=True) for i in range(MAX_RUNNING)), patient)
    number = 0
    while patient.num_output == 0:
        number += 1
        if len(simulation.scheduler.waiting) < 8:
            simulation.add(sequence(f"i{number}", 8, 20, interactive=True, arrival=simulation.now))
        simulation.step()
        assert simulation.now < INTERACTIVE_SECONDS + 5


class TestPacing:
    def test_the_price_of_a_token_follows_the_measurements(self) -> None:
        pacing = Pacing(step_seconds=0.06)
        for _ in range(10):
            pacing.observe(3, 0, 0.010)
        for _ in range(30):
            pacing.observe(3, 100, 0.010 + 100 * 0.0004)
        assert pacing.token_seconds == pytest.approx(0.0004, rel=0.01)
        assert pacing.chunk(512, 3) == 96  # 125 would fit into the 50 ms left

    def test_with_nothing_decoding_it_goes_to_full_speed(self) -> None:
        pacing = Pacing(token_seconds=0.0005)
        assert pacing.chunk(512, 0) == 512

    def test_on_a_slow_machine_a_prompt_alone_still_lets_others_in(self) -> None:
        pacing = Pacing(token_seconds=0.03)
        assert pacing.chunk(512, 0) == 128
        assert pacing.chunk(512, 1) == 16, "always some progress"
