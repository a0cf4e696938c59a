"""Guesses at the next tokens without a second model: what followed the last time these tokens stood in the text.

Prompt lookup decoding (A. Saxena, 2023). A guess is verified in the same step as the token it follows, and kept only as
far as the model itself draws the same tokens, so the text is the one that it would have been without.
"""

from __future__ import annotations

NGRAMS = (4, 2)  # so many tokens have to agree before a guess is made; the longer agreement is believed first
MOST_DRAFTED = 7  # with the token before them one group of eight columns of a matrix product
SHORTEST = 3  # a guess of one token costs nearly as much as one of three
STREAMS = 4  # beyond so many sequences in a step, a column costs more than a guess is worth
TRIALS = 4  # guesses in a row of little use, after which it pauses
PAUSE = 64  # tokens
WORTH = 0.25  # of the guessed tokens have to be right


class Drafter:
    """Of one sequence. `extend` with every token of prompt and output, `propose` before a step, `report` after it."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        # n -> n-gram -> index of the token that followed it last
        self._next: dict[int, dict[tuple[int, ...], int]] = {n: {} for n in NGRAMS}
        self._useless = 0
        self._paused_until = 0
        self._size = MOST_DRAFTED

    def extend(self, tokens: list[int]) -> None:
        at = len(self._tokens)
        self._tokens.extend(tokens)
        # An n-gram is entered once something follows it: the last one must not find itself.
        for n, following in self._next.items():
            for end in range(max(at, n), len(self._tokens)):
                following[tuple(self._tokens[end - n : end])] = end

    def propose(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none when nothing is known or guessing has not paid lately."""
        if len(self._tokens) < self._paused_until:
            return []
        for n, following in self._next.items():
            at = following.get(tuple(self._tokens[-n:]))
            if at is not None:
                return self._tokens[at : at + min(most, self._size)]
        return []

    def report(self, num_proposed: int, num_accepted: int) -> None:
        """Longer guesses after one that was right to its end, shorter ones after others, a pause after several bad."""
        if not num_proposed:
            return
        if num_accepted == num_proposed:
            self._size = min(MOST_DRAFTED, self._size * 2)
        else:
            self._size = max(SHORTEST, num_accepted + 1)
        self._useless = self._useless + 1 if num_accepted < WORTH * num_proposed else 0
        if self._useless >= TRIALS:
            self._useless = 0
            self._paused_until = len(self._tokens) + PAUSE
