"""The radix tree over a simulated KV cache: what is shared is the right cells, counted once, never more than that."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from axion_llm.engine.prefix_cache import EVERYBODY, SHORTEST_MATCH, TRIM_CELLS, Border, Node, PrefixCache
from tests.engine.cells import FakeCells

SYSTEM = list(range(100, 140))


class Tree:
    """A cache and its cells, with what an engine does to them."""

    def __init__(self, num_ids: int = 8, window: int = 0, *, is_on: bool = True) -> None:
        self.kv = FakeCells(window)
        self.cache = PrefixCache(self.kv, num_ids, is_on=is_on)

    def begin(self, tokens: list[int], border: Border = EVERYBODY) -> tuple[int, Node, int]:
        seq_id = self.cache.take_id()
        assert seq_id is not None
        node, count = self.cache.lend(tokens, seq_id, border)
        self.kv.compute(seq_id, count, tokens[count:])
        return seq_id, node, count

    def run(self, tokens: list[int], border: Border = EVERYBODY) -> int:
        """A whole request; how much of it was cached."""
        seq_id, node, count = self.begin(tokens, border)
        self.cache.keep(tokens, seq_id, node, border)
        self.cache.unlock(node)
        return count


def test_a_second_turn_shares_all_of_the_first() -> None:
    tree = Tree()
    assert tree.run([*SYSTEM, 1, 2, 3]) == 0
    assert tree.run([*SYSTEM, 1, 2, 3, 4, 5]) == len(SYSTEM) + 3
    assert tree.kv.num_used == tree.cache.num_cells == len(SYSTEM) + 5


def test_a_shared_system_prompt_is_held_once() -> None:
    tree = Tree()
    tree.run(SYSTEM + [1] * 20)
    assert tree.run(SYSTEM + [2] * 20) == len(SYSTEM)
    assert tree.kv.num_used == len(SYSTEM) + 40


def test_the_same_prompt_again_leaves_one_token_to_compute() -> None:
    tree = Tree()
    tree.run(SYSTEM)
    assert tree.run(SYSTEM) == len(SYSTEM) - 1
    assert tree.kv.num_used == len(SYSTEM)


def test_a_short_common_beginning_is_not_worth_sharing() -> None:
    tree = Tree()
    tree.run(SYSTEM)
    assert tree.run(SYSTEM[: SHORTEST_MATCH - 1] + [7] * 30) == 0


def test_two_that_computed_the_same_in_parallel_stay_two_branches() -> None:
    """Neither may see the other's cells: they would not lie in the order of positions."""
    tree = Tree()
    a, b = tree.begin([*SYSTEM, 1]), tree.begin([*SYSTEM, 2, 3])
    for (seq_id, node, _), rest in ((a, [1]), (b, [2, 3])):
        tree.cache.keep(SYSTEM + rest, seq_id, node)
        tree.cache.unlock(node)
    assert tree.kv.num_used == tree.cache.num_cells == 2 * len(SYSTEM) + 3
    assert tree.cache.match([*SYSTEM, 2, 3, 4])[0] == len(SYSTEM) + 2


def test_a_branch_that_another_continues_is_held_once() -> None:
    tree = Tree()
    a, b = tree.begin(SYSTEM), tree.begin([*SYSTEM, 1])
    for (seq_id, node, _), rest in ((a, []), (b, [1])):
        tree.cache.keep(SYSTEM + rest, seq_id, node)
        tree.cache.unlock(node)
    assert tree.kv.num_used == tree.cache.num_cells == len(SYSTEM) + 1


def test_a_published_prompt_is_shared_while_its_owner_goes_on() -> None:
    tree = Tree()
    seq_id, node, _ = tree.begin(SYSTEM)
    node = tree.cache.publish(SYSTEM, seq_id, node)
    assert tree.cache.match([*SYSTEM, 5]) == (len(SYSTEM), len(SYSTEM))
    tree.kv.compute(seq_id, len(SYSTEM), [9, 9])
    assert tree.run([*SYSTEM, 5]) == len(SYSTEM)
    tree.cache.keep([*SYSTEM, 9, 9], seq_id, node)
    tree.cache.unlock(node)
    assert tree.kv.num_used == len(SYSTEM) + 3


def test_the_least_recently_used_branch_goes_first() -> None:
    tree = Tree()
    tree.run(SYSTEM + [1] * 10)
    tree.run(SYSTEM + [2] * 10)
    tree.run(SYSTEM + [1] * 10)
    tree.cache.evict(5)
    assert tree.cache.match(SYSTEM + [1] * 10)[0] == len(SYSTEM) + 9
    assert tree.cache.match(SYSTEM + [2] * 10)[0] == len(SYSTEM)


def test_a_long_branch_gives_up_its_tail_only() -> None:
    tree = Tree()
    tree.run([5] * (4 * TRIM_CELLS))
    assert tree.cache.evict(3) == TRIM_CELLS
    assert tree.kv.num_used == tree.cache.num_cells == 3 * TRIM_CELLS


def test_what_a_running_sequence_shares_is_not_evicted() -> None:
    tree = Tree()
    tree.run(SYSTEM + [1] * 10)
    _, node, _ = tree.begin(SYSTEM + [2] * 10)
    assert tree.cache.evict(1000) == 10
    assert tree.cache.num_cells == tree.cache.num_locked_cells == len(SYSTEM)
    tree.cache.unlock(node)
    assert tree.cache.num_locked_cells == 0


def test_ids_run_out_only_when_running_sequences_have_them_all() -> None:
    tree = Tree(num_ids=3)
    for i in range(10):
        tree.run([i] * 20)
    held = [tree.begin([50 + i] * 20) for i in range(3)]
    assert tree.cache.take_id() is None
    tree.cache.keep([50] * 20, held[0][0], held[0][1])
    assert tree.cache.take_id() is not None


def test_a_model_that_cannot_share_computes_all_and_keeps_nothing() -> None:
    tree = Tree(is_on=False)
    assert tree.run(SYSTEM) == tree.run(SYSTEM) == 0
    assert tree.kv.num_used == 0


@pytest.mark.parametrize(("length", "shared"), [(60, 0), (41, 40), (47, 40)])
def test_with_a_sliding_window_only_what_is_still_there_is_shared(length: int, shared: int) -> None:
    """A prefix whose window was forgotten, since the sequence went on, is computed anew."""
    tree = Tree(window=8)
    tree.run(SYSTEM + [1] * (length - len(SYSTEM)))
    got = tree.cache.match(SYSTEM + [2] * 30)[0]
    assert got == (shared if length - 8 <= len(SYSTEM) - 8 else 0)


ALICE, EVE = Border("alice"), Border("eve")


def test_nothing_of_another_tenant_is_shared_or_told() -> None:
    tree = Tree(num_ids=30)
    assert tree.run([*SYSTEM, 4, 7], ALICE) == 0
    for guess in range(10):
        of_her_own = len(SYSTEM) if guess else 0
        assert tree.cache.match([*SYSTEM, guess, 0], EVE)[0] == of_her_own
        assert tree.run([*SYSTEM, guess], EVE) == of_her_own
    assert tree.run([*SYSTEM, 4, 7, 1], ALICE) == len(SYSTEM) + 2


def test_a_published_prompt_is_not_for_other_tenants() -> None:
    tree = Tree()
    seq_id, node, _ = tree.begin(SYSTEM, ALICE)
    tree.cache.publish(SYSTEM, seq_id, node, ALICE)
    assert tree.cache.match([*SYSTEM, 1], EVE)[0] == 0
    assert tree.cache.match([*SYSTEM, 1], ALICE)[0] == len(SYSTEM)


def test_what_is_public_is_shared_and_nothing_behind_it() -> None:
    tree = Tree()
    shown = len(SYSTEM)
    alice, eve = Border("alice", shown), Border("eve", shown)
    assert tree.run([*SYSTEM, *[4] * 10], alice) == 0
    assert tree.run([*SYSTEM, *[4] * 10], eve) == shown
    assert tree.kv.num_used == tree.cache.num_cells == shown + 20
    assert tree.run([*SYSTEM, *[4] * 10, 1], alice) == shown + 10
    assert tree.run([*SYSTEM, 1], Border("bob")) == shown  # whose request does not say so, but who may know it


def test_where_a_public_text_is_shared_the_whole_of_a_sequence_may_be_it() -> None:
    tree = Tree()
    tree.run(SYSTEM, Border("alice", len(SYSTEM)))
    assert tree.run([*SYSTEM, 1], Border("eve", len(SYSTEM))) == len(SYSTEM)


class CacheMachine(RuleBasedStateMachine):
    """Random lives of sequences over few tokens, so that prefixes collide all the time."""

    NUM_IDS, MAX_RUNNING = 9, 4

    def __init__(self) -> None:
        super().__init__()
        self.kv = FakeCells()
        self.cache = PrefixCache(self.kv, self.NUM_IDS)
        self.running: dict[int, tuple[list[int], Node]] = {}
        self.borders: dict[int, Border] = {}
        self.said: dict[str, list[list[int]]] = {}  # by tenant, what it has asked or may know

    prompts = st.lists(st.sampled_from([[1] * 9, [2] * 9, [1, 2, 3], [3]]), min_size=1, max_size=6)

    @precondition(lambda self: len(self.running) < self.MAX_RUNNING)
    @rule(parts=prompts, tenant=st.sampled_from(["", "a", "b"]), is_public=st.booleans())
    def begin(self, parts: list[list[int]], tenant: str, is_public: bool) -> None:
        tokens = [t for part in parts for t in part]
        seq_id = self.cache.take_id()
        if seq_id is None:
            assert len(self.running) > 0
            return
        border = Border(tenant, len(parts[0]) if is_public else 0)
        expected, _ = self.cache.match(tokens, border)
        node, count = self.cache.lend(tokens, seq_id, border)
        assert count == expected < len(tokens)
        known = self.said.get(tenant, []) + self.said.get("", [])
        assert not count or any(prompt[:count] == tokens[:count] for prompt in known)
        self.borders[seq_id] = border
        self.said.setdefault(tenant, []).append(tokens)
        self.said.setdefault("", []).append(tokens[: border.num_public])
        self.kv.compute(seq_id, count, tokens[count:])
        self.running[seq_id] = (tokens, node)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), more=st.lists(st.integers(1, 3), max_size=4))
    def go_on(self, data: st.DataObject, more: list[int]) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.running)))
        tokens, node = self.running[seq_id]
        self.kv.compute(seq_id, len(tokens), more)
        self.running[seq_id] = (tokens + more, node)
        self.said[self.borders[seq_id].tenant].append(tokens + more)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.running)))
        tokens, node = self.running[seq_id]
        self.running[seq_id] = (tokens, self.cache.publish(tokens, seq_id, node, self.borders[seq_id]))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def end(self, data: st.DataObject, keep: bool) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.running)))
        tokens, node = self.running.pop(seq_id)
        if keep:
            self.cache.keep(tokens, seq_id, node, self.borders[seq_id])
        else:
            self.cache.give_back(seq_id)
        self.cache.unlock(node)

    @rule(num_cells=st.integers(1, 30))
    def evict(self, num_cells: int) -> None:
        evictable = self.cache.num_cells - self.cache.num_locked_cells
        before = self.kv.num_used
        freed = self.cache.evict(num_cells)
        assert freed >= min(num_cells, evictable)
        assert before - self.kv.num_used == freed

    @invariant()
    def every_sequence_sees_its_own_tokens(self) -> None:
        for seq_id, (tokens, _) in self.running.items():
            assert self.kv.tokens(seq_id) == tokens

    @invariant()
    def cells_lie_in_the_order_of_positions(self) -> None:
        """A new token goes behind all cells of its sequence (patches/0002-kv-order.patch), and that is enough."""
        at = {id(c): i for i, c in enumerate(self.kv.cells)}
        for seq_id in range(self.NUM_IDS):
            places = [at[id(c)] for c in self.kv.of(seq_id)]
            assert places == sorted(places)

    @invariant()
    def every_leaf_sees_its_path(self) -> None:
        for node in self.cache.nodes():
            assert (node.seq_id >= 0) == (not node.children)
            if node.seq_id >= 0:
                path: list[int] = []
                at: Node | None = node
                while at is not None:
                    path = at.tokens + path
                    at = at.parent
                assert self.kv.tokens(node.seq_id) == path

    @invariant()
    def cells_are_counted_once(self) -> None:
        own = sum(len(tokens) - node.end for tokens, node in self.running.values())
        assert self.kv.num_used == self.cache.num_cells + own

    @invariant()
    def locks_are_those_of_running_sequences(self) -> None:
        locked = {id(n): n for _, node in self.running.values() for n in PrefixCache._up(node)}
        assert self.cache.num_locked_cells == sum(len(n.tokens) for n in locked.values())


CacheMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestRandomLives = CacheMachine.TestCase
