"""A unified KV cache without llama.cpp: cells as it keeps them, each with a position, a token and who sees it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Cell:
    position: int
    token: int
    seen_by: set[int] = field(default_factory=set)


class FakeCells:
    """`window`: a sliding window; cells further back than that from a sequence's end are forgotten."""

    def __init__(self, window: int = 0) -> None:
        self.cells: list[Cell] = []
        self.window = window

    def compute(self, seq_id: int, start: int, tokens: list[int]) -> None:
        assert len(self.of(seq_id)) == start or self.window, "a sequence has to go on where it ended"
        self.cells += [Cell(start + i, t, {seq_id}) for i, t in enumerate(tokens)]
        if self.window:
            self._forget(seq_id, lambda c: c.position < start + len(tokens) - self.window)

    def of(self, seq_id: int) -> list[Cell]:
        return sorted((c for c in self.cells if seq_id in c.seen_by), key=lambda c: c.position)

    def tokens(self, seq_id: int) -> list[int]:
        seen = self.of(seq_id)
        assert [c.position for c in seen] == list(range(len(seen))), "a position twice, or a hole"
        return [c.token for c in seen]

    @property
    def num_used(self) -> int:
        return len(self.cells)

    def _forget(self, seq_id: int, which) -> None:  # type: ignore[no-untyped-def]
        for c in self.cells:
            if seq_id in c.seen_by and which(c):
                c.seen_by.discard(seq_id)
        self.cells = [c for c in self.cells if c.seen_by]

    # ---- KvCells

    def share(self, source: int, target: int, count: int) -> None:
        for c in self.of(source):
            if c.position < count:
                c.seen_by.add(target)

    def truncate(self, seq_id: int, count: int) -> None:
        self._forget(seq_id, lambda c: c.position >= count)

    def can_share(self, source: int, count: int) -> bool:
        first = min((c.position for c in self.of(source)), default=0)
        return first <= max(0, count - self.window) if self.window else True
