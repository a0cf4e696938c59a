"""How a sequence's next token is drawn from its logits: an arg-max where nothing else would change it, else few numpy
passes over the vocabulary, and the rest on the few tokens that top-k, top-p and min-p can leave.

The stages and their order are llama.cpp's: logit bias, penalties, top-k, top-p, min-p, temperature, draw.
"""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import numpy.typing as npt

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.constraint import Bits, allowed, is_allowed
from axion_llm.worker.messages import Sampling, TokenLogprob

COLUMNS = 512  # a vocabulary is looked through in so many columns

Floats = npt.NDArray[np.float32]
Indexes = npt.NDArray[np.int64]


class Sampler:
    """One request's stages, and its own source of randomness: one seed gives one text, alone and in any batch."""

    def __init__(self, sampling: Sampling, prompt: list[int]) -> None:
        self._s = sampling
        self.is_greedy = is_plain_greedy(sampling)
        self._random = np.random.default_rng(sampling.seed)
        self._recent = deque(prompt[-sampling.repeat_last_n :], sampling.repeat_last_n)
        self._counts: Counter[int] = Counter()  # OpenAI counts what was generated, all of it

    def sample(self, logits: Floats, best: int, bits: Bits | None = None) -> int:
        """The next token, remembered for the penalties. `logits`: [n_vocab]; `best`: their arg-max.

        With `bits` only a token that they allow.
        """
        if self.is_greedy and (bits is None or is_allowed(bits, best)):
            return best
        adjusted = self._adjusted(logits)
        token = self._draw(adjusted) if bits is None else self._draw_allowed(adjusted, allowed(bits, len(logits)), best)
        self.remember(token)
        return token

    def _draw_allowed(self, logits: Floats, mask: npt.NDArray[np.bool_], best: int) -> int:
        """`best` when nothing is allowed: the grammar then says what is wrong."""
        if 2 * np.count_nonzero(mask) > len(mask):
            return self._draw(np.where(mask, logits, -np.inf))
        tokens = np.flatnonzero(mask)  # often a handful: not the whole vocabulary again and again
        return int(tokens[self._draw(logits[tokens])]) if len(tokens) else best

    def remember(self, token: int) -> None:
        """A token that was not drawn here counts for the penalties too."""
        if not self.is_greedy:
            self._recent.append(token)
            self._counts[token] += 1

    def _adjusted(self, logits: Floats) -> Floats:
        """With bias and penalties; a copy when they change something."""
        s = self._s
        is_penal = s.repeat_penalty != 1.0 or s.frequency_penalty or s.presence_penalty
        if not s.logit_bias and not is_penal:
            return logits
        adjusted: Floats = logits.copy()
        for token, bias in s.logit_bias.items():
            adjusted[token] += bias
        if s.repeat_penalty != 1.0:
            seen = np.fromiter(set(self._recent), np.int64)
            values = adjusted[seen]
            adjusted[seen] = np.where(values > 0, values / s.repeat_penalty, values * s.repeat_penalty)
        for token, count in self._counts.items() if s.frequency_penalty or s.presence_penalty else ():
            adjusted[token] -= count * s.frequency_penalty + s.presence_penalty
        return adjusted

    def _draw(self, logits: Floats) -> int:
        s = self._s
        if s.temperature <= 0:
            return int(logits.argmax())
        if s.top_k <= 0 and s.top_p >= 1.0 and s.min_p <= 0:
            return draw_from_all(logits / np.float32(s.temperature), self._random.random())
        tokens = top_k(logits, s.top_k) if 0 < s.top_k < len(logits) else np.arange(len(logits))
        values = logits[tokens].astype(np.float64)
        probabilities = np.exp(values - values.max())
        probabilities /= probabilities.sum()
        kept = np.ones(len(tokens), bool)
        if s.top_p < 1.0:
            kept[outside_nucleus(probabilities, s.top_p)] = False
        if s.min_p > 0:
            kept &= probabilities >= s.min_p * probabilities.max()
        weights = np.exp((values[kept] - values.max()) / s.temperature)
        sums = weights.cumsum()
        return int(tokens[kept][np.searchsorted(sums, self._random.random() * sums[-1], side="right")])


def is_plain_greedy(s: Sampling) -> bool:
    return s.temperature <= 0 and not (
        s.logit_bias or s.frequency_penalty or s.presence_penalty or s.repeat_penalty != 1.0
    )


def top_k(logits: Floats, k: int) -> Indexes:
    """Indexes of the `k` largest, in order of their index; of equal ones at the edge, any."""
    rows = len(logits) // COLUMNS
    if k < COLUMNS and rows > 1:
        # At least k logits reach the k-th largest of the columns' maxima, and hardly more do.
        maxima = logits[: rows * COLUMNS].reshape(rows, COLUMNS).max(axis=0)
        candidates = np.flatnonzero(logits >= np.partition(maxima, -k)[-k])
    else:
        candidates = np.arange(len(logits))
    best = np.argpartition(logits[candidates], -k)[-k:]
    return candidates[np.sort(best)]


def outside_nucleus(probabilities: npt.NDArray[np.float64], top_p: float) -> Indexes:
    """Indexes that are not in the smallest set of most likely tokens that has `top_p` of the probability."""
    # All below this together have less than 1 - top_p: only the others need to be sorted.
    small = probabilities < (1.0 - top_p) / len(probabilities)
    large = np.flatnonzero(~small)
    order = large[np.argsort(-probabilities[large], kind="stable")]
    sums = probabilities[order].cumsum()
    size = int(np.searchsorted(sums, top_p)) + 1
    return np.concatenate([order[size:], np.flatnonzero(small)])


def draw_from_all(logits: Floats, uniform: float) -> int:
    """A token of the softmax over the whole vocabulary; `uniform` in [0, 1)."""
    weights = np.exp(logits - logits.max())
    starts = np.arange(0, len(weights), COLUMNS)
    sums = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    target = uniform * sums[-1]
    block = min(int(np.searchsorted(sums, target, side="right")), len(sums) - 1)
    inside = weights[starts[block] : starts[block] + COLUMNS].cumsum(dtype=np.float64)
    before = sums[block - 1] if block else 0.0
    at = int(np.searchsorted(inside, target - before, side="right"))
    return int(starts[block]) + min(at, len(inside) - 1)


def token_logprobs(model: LlamaModel, row: Floats, token: int, top: int) -> TokenLogprob:
    """Log-probabilities of the model itself (before bias, penalties, temperature), as OpenAI reports them.

    `row`: logits, [n_vocab]. `top`: how many of the most likely tokens to list.
    """
    peak = row.max()
    log_sum = float(peak) + float(np.log(np.exp(row - peak, dtype=np.float32).sum(dtype=np.float64)))
    best: list[tuple[int, bytes, float]] = []
    if top:
        candidates = top_k(row, min(top, len(row)))
        for t in candidates[np.lexsort((candidates, -row[candidates]))]:
            best.append((int(t), model.piece(int(t)), float(row[t]) - log_sum))
    return TokenLogprob(token, model.piece(token), float(row[token]) - log_sum, best)
