"""How a sequence's next token is drawn: llama.cpp's sampler chain, or an arg-max where nothing else would change it."""

from __future__ import annotations

import ctypes
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from axion_llm.engine.binding import LlamaModel, lib
from axion_llm.worker.messages import Sampling, TokenLogprob

REPEAT_WINDOW = 64  # tokens, prompt included, that repeat_penalty looks back on: llama.cpp's default


class Sampler:
    """One request's chain: logit bias, penalties, top-k, top-p, min-p, temperature, draw. `close` frees it."""

    def __init__(self, model: LlamaModel, sampling: Sampling, prompt: list[int]) -> None:
        self._model = model
        self.is_greedy = is_plain_greedy(sampling)
        self._chain: Any = None if self.is_greedy else self._build(sampling, prompt)

    def _build(self, s: Sampling, prompt: list[int]) -> Any:
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        add = lib.llama_sampler_chain_add
        n_vocab = self._model.n_vocab
        if s.logit_bias:
            add(chain, _logit_bias(n_vocab, s.logit_bias))
        if s.repeat_penalty != 1.0:
            repeat = lib.llama_sampler_init_penalties(n_vocab, REPEAT_WINDOW, s.repeat_penalty, 0.0, 0.0)
            for token in prompt[-REPEAT_WINDOW:]:
                lib.llama_sampler_accept(repeat, token)
            add(chain, repeat)
        if s.frequency_penalty or s.presence_penalty:
            # OpenAI counts what was generated, all of it
            window = self._model.n_ctx
            add(chain, lib.llama_sampler_init_penalties(n_vocab, window, 1.0, s.frequency_penalty, s.presence_penalty))
        if s.temperature <= 0:
            add(chain, lib.llama_sampler_init_greedy())
            return chain
        if s.top_k > 0:
            add(chain, lib.llama_sampler_init_top_k(s.top_k))
        if s.top_p < 1.0:
            add(chain, lib.llama_sampler_init_top_p(s.top_p, 1))
        if s.min_p > 0:
            add(chain, lib.llama_sampler_init_min_p(s.min_p, 1))
        add(chain, lib.llama_sampler_init_temp(s.temperature))
        seed = secrets.randbits(32) if s.seed is None else s.seed & 0xFFFFFFFF
        # 0xFFFFFFFF is llama.cpp's word for "any seed"
        add(chain, lib.llama_sampler_init_dist(seed if seed != 0xFFFFFFFF else 0))
        return chain

    def sample(self, batch_index: int) -> int:
        """Draw from the logits of that token of the last batch, and remember what was drawn."""
        return int(lib.llama_sampler_sample(self._chain, self._model.ctx, batch_index))

    def close(self) -> None:
        if self._chain:
            lib.llama_sampler_free(self._chain)
            self._chain = None


def is_plain_greedy(s: Sampling) -> bool:
    return s.temperature <= 0 and not (
        s.logit_bias or s.frequency_penalty or s.presence_penalty or s.repeat_penalty != 1.0
    )


def _logit_bias(n_vocab: int, bias: dict[int, float]) -> Any:
    entries = (lib.llama_logit_bias * len(bias))(*bias.items())
    return lib.llama_sampler_init_logit_bias(n_vocab, len(bias), ctypes.cast(entries, lib.llama_logit_bias_p))


def token_logprobs(model: LlamaModel, row: npt.NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """Log-probabilities of the model itself (before bias, penalties, temperature), as OpenAI reports them.

    `row`: logits, [n_vocab]. `top`: how many of the most likely tokens to list.
    """
    peak = row.max()
    log_sum = float(peak) + float(np.log(np.exp(row - peak, dtype=np.float32).sum(dtype=np.float64)))
    best: list[tuple[int, bytes, float]] = []
    if top:
        candidates = np.argpartition(row, -top)[-top:]
        for t in candidates[np.lexsort((candidates, -row[candidates]))]:
            best.append((int(t), model.piece(int(t)), float(row[t]) - log_sum))
    return TokenLogprob(token, model.piece(token), float(row[token]) - log_sum, best)
