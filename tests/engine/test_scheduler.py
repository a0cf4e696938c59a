"""The scheduler alone, without llama.cpp: decodes first, nothing starves, cells are never oversubscribed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from axion_llm.engine.scheduler import CHUNK_BESIDE_DECODES, Scheduler, Step
from axion_llm.engine.sequence import Sequence, Status
from axion_llm.worker.messages import Generate, Sampling

NUM_CELLS, NUM_IDS, N_BATCH = 600, 4, 128


def sequence(name: str, num_prompt: int, max_output: int, *, interactive: bool = False) -> Sequence:
    request = Generate(name, "", Sampling(), interactive=interactive)
    return Sequence(request, [0] * num_prompt, num_prompt + max_output, arrival=0.0)


def advance(scheduler: Scheduler, step: Step) -> list[Sequence]:
    """What the engine does with a step: compute it, one new token for each sequence that is up to date."""
    scheduler.commit(step)
    ended = []
    for s in step.slices:
        if s.sequence.num_to_compute == 0:
            s.sequence.tokens.append(1)
            if s.sequence.is_full:
                scheduler.end(s.sequence)
                ended.append(s.sequence)
    return ended


def check(scheduler: Scheduler, step: Step) -> None:
    assert 0 < step.num_tokens <= N_BATCH
    computed = {id(s.sequence): s.count for s in step.slices}
    assert len(computed) == len(step.slices), "a sequence twice in one step"
    assert scheduler.cells_used + step.num_tokens <= NUM_CELLS
    decoding = [s for s in scheduler.running if s.is_decoding]
    assert all(computed.get(id(s)) == 1 for s in decoding), "a running stream was left out"
    ids = [s.seq_id for s in scheduler.running]
    assert len(set(ids)) == len(ids) <= NUM_IDS
    assert all(0 <= i < NUM_IDS for i in ids)


def test_decodes_come_first_and_a_prompt_gets_a_bounded_chunk() -> None:
    scheduler = Scheduler(NUM_CELLS, NUM_IDS, N_BATCH)
    stream = sequence("stream", 4, 50)
    scheduler.add(stream)
    advance(scheduler, scheduler.schedule())
    scheduler.add(sequence("long", 400, 10))
    step = scheduler.schedule()
    assert [(s.sequence.request_id, s.count) for s in step.slices] == [
        ("stream", 1),
        ("long", CHUNK_BESIDE_DECODES),
    ]


def test_alone_a_prompt_gets_the_whole_batch() -> None:
    scheduler = Scheduler(NUM_CELLS, NUM_IDS, N_BATCH)
    scheduler.add(sequence("long", 400, 10))
    assert scheduler.schedule().num_tokens == N_BATCH


def test_only_the_last_chunk_of_a_prompt_wants_logits() -> None:
    scheduler = Scheduler(NUM_CELLS, NUM_IDS, N_BATCH)
    scheduler.add(sequence("long", N_BATCH + 1, 10))
    first = scheduler.schedule()
    scheduler.commit(first)
    second = scheduler.schedule()
    assert [s.wants_logits for s in (*first.slices, *second.slices)] == [False, True]


def test_interactive_requests_are_queued_before_standard_ones() -> None:
    scheduler = Scheduler(NUM_CELLS, 1, N_BATCH)
    for name, interactive in [("running", False), ("a", False), ("b", True), ("c", True)]:
        scheduler.add(sequence(name, 4, 4, interactive=interactive))
        if name == "running":
            scheduler.schedule()
    assert [s.request_id for s in scheduler.waiting] == ["b", "c", "a"]


def test_when_cells_run_out_the_youngest_waits_with_its_tokens_kept() -> None:
    scheduler = Scheduler(300, NUM_IDS, N_BATCH)
    old, young = sequence("old", 20, 280), sequence("young", 20, 280)
    scheduler.add(old)
    scheduler.add(young)
    while scheduler.running or scheduler.waiting:
        step = scheduler.schedule()
        if step.preempted:
            break
        advance(scheduler, step)
    assert (old.status, young.status) == (Status.RUNNING, Status.WAITING)
    assert young.num_computed == 0 and young.num_output > 50


def test_an_ended_sequence_gives_its_id_back_exactly_once() -> None:
    scheduler = Scheduler(NUM_CELLS, 1, N_BATCH)
    first, second = sequence("first", 4, 4), sequence("second", 4, 4)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.schedule()
    assert scheduler.end(second) is None, "it waited and had no cells"
    assert scheduler.end(first) == 0
    assert not scheduler.has_work


arrivals = st.lists(
    st.tuples(
        st.integers(0, 30),  # steps to wait before it arrives
        st.integers(1, 500),  # prompt
        st.integers(1, 100),  # output
        st.booleans(),  # interactive
        st.integers(0, 60),  # steps until it is cancelled; 0: never
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(arrivals, st.sampled_from([NUM_CELLS, NUM_CELLS, 300, 90]))
def test_every_request_ends_and_no_invariant_breaks(plan: list[tuple[int, int, int, bool, int]], really: int) -> None:
    """`really`: cells that the cache takes, whatever it says."""
    scheduler = Scheduler(NUM_CELLS, NUM_IDS, N_BATCH)
    alive: dict[str, int] = {}
    pending = [(sequence(str(i), p, o, interactive=x), wait, stop) for i, (wait, p, o, x, stop) in enumerate(plan)]
    sequences = [s for s, _, _ in pending]
    ended: set[str] = set()
    for _ in range(20_000):
        while pending and pending[0][1] <= 0:
            s, _, stop = pending.pop(0)
            scheduler.add(s)
            alive[s.request_id] = stop or 10**9
        if pending:
            s, wait, stop = pending[0]
            pending[0] = (s, wait - 1, stop)
        for s in sequences:
            left = alive.get(s.request_id)
            if left is not None:
                alive[s.request_id] = left - 1
                if left <= 0:
                    scheduler.end(s)
                    del alive[s.request_id]
                    ended.add(s.request_id)
        if not scheduler.has_work:
            if not pending:
                break
            continue
        step = scheduler.schedule()
        check(scheduler, step)
        if scheduler.cells_used + step.num_tokens > really:
            if scheduler.shrink_to_fit() is None:  # alone and too large: the engine lets it fail
                alone = scheduler.running[0]
                scheduler.end(alone)
                del alive[alone.request_id]
                ended.add(alone.request_id)
            continue
        for s in advance(scheduler, step):
            del alive[s.request_id]
            ended.add(s.request_id)
    assert len(ended) == len(plan)
    assert scheduler.cells_used == 0
    assert sorted(scheduler._free_ids) == list(range(NUM_IDS))
