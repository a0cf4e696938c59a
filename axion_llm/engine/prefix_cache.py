"""What the KV cache still holds of ended prompts: a radix tree over tokens whose nodes are runs of cached cells.

A leaf owns a sequence id of llama.cpp's unified cache, and that id covers all cells from the root to the leaf; an
inner node needs none, every leaf below covers it. Sharing a prefix is a mark on its cells (`KvCells.share`), never a
copy, so a cell is counted once: in its node here, or as a running sequence's own. (The tree with locks is SGLang's
RadixAttention, Zheng et al. 2023, on llama.cpp's sequence ids.)

Two sequences that computed the same beginning at the same time stay two branches. To give one the other's cells would
put these out of the order of positions, which attention sums in: logits would depend on who else was there.

A branch belongs to a tenant, and only sequences of that tenant see it. What is cached can be learnt from counts and
the time to the first token, a token at a time: over a border of trust, the cache would read prompts aloud.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

TRIM_CELLS = 256  # a long branch gives up its tail in pieces of at least that, not token by token
SHORTEST_MATCH = 8  # tokens; below this sharing costs more calls than it saves computing


class KvCells(Protocol):
    """The unified KV cache, as sequence ids over cells."""

    def share(self, source: int, target: int, count: int) -> None:
        """Let `target` see the first `count` positions of `source`, in the same cells."""
        ...

    def truncate(self, seq_id: int, count: int) -> None:
        """Keep the first `count` positions of a sequence."""
        ...

    def can_share(self, source: int, count: int) -> bool:
        """Whether the first `count` positions of `source` are all there that a token behind them will look at."""
        ...


@dataclass(frozen=True)
class Border:
    """Whom a sequence shares its cells with."""

    tenant: str = ""  # those of the same one; "": everybody
    num_public: int = 0  # of its first tokens, that everybody may know of


EVERYBODY = Border()


@dataclass(eq=False)
class Node:
    tokens: list[int]
    start: int  # position of its first token
    parent: Node | None
    tenant: str = ""  # who sees it; "": everybody
    children: list[Node] = field(default_factory=list)
    seq_id: int = -1  # a leaf's
    num_locks: int = 0  # running sequences that share it or something below it
    last_used: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class PrefixCache:
    """Owns all sequence ids: those of running sequences are lent out, the others hold branches of the tree."""

    def __init__(self, kv: KvCells, num_ids: int, *, is_on: bool = True) -> None:
        self._kv = kv
        self._is_on = is_on  # off: models whose state cannot be cut at a position (recurrent ones)
        self._free_ids = list(range(num_ids - 1, -1, -1))
        self._root = Node([], 0, None)
        self._clock = 0
        self.num_cells = 0  # held by the tree
        self.num_locked_cells = 0  # of them, shared with running sequences: not to be had by eviction

    # ---- sequence ids

    def take_id(self) -> int | None:
        """A sequence id with nothing in it; None when running sequences hold all."""
        while not self._free_ids:
            leaf = self._oldest_leaf()
            if leaf is None:
                return None
            self._remove_leaf(leaf)
        return self._free_ids.pop()

    def give_back(self, seq_id: int) -> None:
        """An id with all that only it sees."""
        self._kv.truncate(seq_id, 0)
        self._free_ids.append(seq_id)

    # ---- looking up

    def match(self, tokens: list[int], border: Border = EVERYBODY) -> tuple[int, int]:
        """How many of the first tokens are cached and may be shared, and how many of these are locked already.

        At least one token is left to compute.
        """
        node, count = self._walk(tokens[:-1], border.tenant)
        count = self._usable(node, count)
        locked = next(n for n in self._up(node) if n.num_locks or n is self._root)
        return count, min(count, locked.end)

    def lend(self, tokens: list[int], seq_id: int, border: Border = EVERYBODY) -> tuple[Node, int]:
        """Give `seq_id` the longest cached prefix and lock it; the node to `unlock` later, and the prefix's length."""
        node, count = self._walk(tokens[:-1], border.tenant)
        count = self._usable(node, count)
        if not count:
            node = self._root
        elif count < node.end:
            node = self._split(node, count)
        if count:
            self._kv.share(self._leaf_below(node).seq_id, seq_id, count)
        self._lock(node)
        return node, count

    def unlock(self, node: Node) -> None:
        for n in self._up(node):
            n.num_locks -= 1
            if not n.num_locks:
                self.num_locked_cells -= len(n.tokens)

    # ---- filling

    def keep(self, tokens: list[int], seq_id: int, held: Node, border: Border = EVERYBODY) -> None:
        """Take over an ended sequence: its id and its cells. `tokens` are all that it has computed; it holds `held`."""
        _, count = self._walk(tokens, border.tenant)
        if not self._is_on or count == len(tokens):  # off, or all of it is here already
            self.give_back(seq_id)
            return
        self._add_leaf(tokens, seq_id, held, border)

    def publish(self, tokens: list[int], seq_id: int, held: Node, border: Border = EVERYBODY) -> Node:
        """Put what a running sequence has computed into the tree, for others to share while it goes on.

        The sequence then shares these cells too: the node it has to unlock from now on, instead of `held`.
        """
        _, count = self._walk(tokens, border.tenant)
        copy = self.take_id() if self._is_on and count < len(tokens) else None
        if copy is None:
            return held
        self._kv.share(seq_id, copy, len(tokens))
        node = self._add_leaf(tokens, copy, held, border)
        self._lock(node)
        self.unlock(held)
        return node

    # ---- giving up

    def evict(self, num_cells: int) -> int:
        """Free at least that many cells, the least recently used branches first; how many were freed."""
        freed = 0
        while freed < num_cells and (leaf := self._oldest_leaf()) is not None:
            wanted = max(num_cells - freed, TRIM_CELLS)
            freed += self._trim_leaf(leaf, wanted) if wanted < len(leaf.tokens) else self._remove_leaf(leaf)
        return freed

    def clear(self) -> None:
        self.evict(self.num_cells)

    @property
    def root(self) -> Node:
        """What a sequence holds that shares nothing."""
        return self._root

    def nodes(self) -> Iterator[Node]:
        """All but the root, for tests and for looking."""
        stack = list(self._root.children)
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children)

    # ---- the tree

    def _walk(self, tokens: list[int], tenant: str) -> tuple[Node, int]:
        """Among what `tenant` sees: the node where the longest common path ends, perhaps inside it, and its length."""
        self._clock += 1
        best, most = self._root, 0
        stack = [self._root]
        while stack:
            node = stack.pop()
            for child in node.children:
                if child.tenant and child.tenant != tenant:
                    continue
                same = _common(child.tokens, tokens, node.end)
                if same and node.end + same > most:
                    best, most = child, node.end + same
                if same == len(child.tokens):
                    stack.append(child)
        for node in self._up(best):
            node.last_used = self._clock
        return best, most

    def _usable(self, node: Node, count: int) -> int:
        if count < SHORTEST_MATCH or not self._kv.can_share(self._leaf_below(node).seq_id, count):
            return 0
        return count

    def _add_leaf(self, tokens: list[int], seq_id: int, held: Node, border: Border) -> Node:
        """A leaf under `held`, whose cells `seq_id` shares, for what comes behind it."""
        if held.seq_id >= 0:  # a leaf no more: the new one covers its cells
            self.give_back(held.seq_id)
            held.seq_id = -1
        tenant = border.tenant if len(tokens) > border.num_public else ""
        leaf = Node(tokens[held.end :], held.end, held, tenant, seq_id=seq_id, last_used=self._clock)
        for other in list(held.children):  # what another has computed too, and nobody else builds on
            is_like = other.tenant == tenant and other.tokens == leaf.tokens[: len(other.tokens)]
            if is_like and not other.children and not other.num_locks:
                self._remove_leaf(other, heir=held)
        held.children.append(leaf)
        self.num_cells += len(leaf.tokens)
        if tenant and leaf.start < border.num_public:
            self._split(leaf, border.num_public).tenant = ""
        return leaf

    def _split(self, node: Node, position: int) -> Node:
        """Cut a node in two at a position inside it; the upper part, new. The lower one keeps its identity and id."""
        assert node.parent is not None and node.start < position < node.end
        cut = position - node.start
        upper = Node(node.tokens[:cut], node.start, node.parent, node.tenant)
        upper.num_locks, upper.last_used = node.num_locks, node.last_used
        node.parent.children[node.parent.children.index(node)] = upper
        node.tokens, node.start, node.parent = node.tokens[cut:], position, upper
        upper.children = [node]
        return upper

    def _trim_leaf(self, leaf: Node, count: int) -> int:
        self._kv.truncate(leaf.seq_id, leaf.end - count)
        del leaf.tokens[-count:]
        self.num_cells -= count
        return count

    def _remove_leaf(self, leaf: Node, heir: Node | None = None) -> int:
        """`heir`: a parent that is about to have another child, and needs no id."""
        parent = leaf.parent
        assert parent is not None and not leaf.children
        parent.children.remove(leaf)
        self.num_cells -= len(leaf.tokens)
        if parent in (self._root, heir) or parent.children:
            self.give_back(leaf.seq_id)
        else:  # the parent is a leaf now, and needs the id
            self._kv.truncate(leaf.seq_id, leaf.start)
            parent.seq_id = leaf.seq_id
        return len(leaf.tokens)

    def _oldest_leaf(self) -> Node | None:
        leaves = [n for n in self.nodes() if not n.children and not n.num_locks]
        return min(leaves, key=lambda n: n.last_used, default=None)

    @staticmethod
    def _leaf_below(node: Node) -> Node:
        while node.children:
            node = node.children[0]
        return node

    def _lock(self, node: Node) -> None:
        for n in self._up(node):
            if not n.num_locks:
                self.num_locked_cells += len(n.tokens)
            n.num_locks += 1

    @staticmethod
    def _up(node: Node) -> Iterator[Node]:
        at: Node | None = node
        while at is not None:
            yield at
            at = at.parent


def _common(run: list[int], tokens: list[int], start: int) -> int:
    """How many of `run` are tokens[start], tokens[start + 1], …"""
    rest = tokens[start : start + len(run)]
    if run == rest:
        return len(run)
    return next((i for i, (a, b) in enumerate(zip(run, rest, strict=False)) if a != b), len(rest))
