"""A second llama.cpp context on the same weights, for embeddings: the hidden state of every token, pooled here.

Why a second one: llama.cpp gives hidden states only of a context in which all tokens of a batch are outputs, which
would put a product with the whole vocabulary behind each prompt token of the streams and rebuild their graph. This
one has a small KV cache of its own, so nothing about the streams changes, not a bit of their texts.
Why pooling is not left to llama.cpp: it pools what is in one batch, and a long input comes in several.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from axion_llm.engine.binding import GGML_TYPE, Batch, LlamaModel, lib
from axion_llm.errors import EngineError

Rows = npt.NDArray[np.float32]  # [num_tokens, n_embd], a view that the next decode overwrites

MAX_SEQUENCES = 64  # inputs in one batch
MAX_LOGITS = 1 << 24  # llama.cpp computes the logits of a batch whether we want them or not: 64 MB of them at most
MIN_BATCH = 32
MAX_ENCODER_BATCH = 2048  # an encoder sees an input in one piece or not at all


class EmbeddingContext:
    """`n_batch`: tokens of one decode. `max_tokens`: of one input. `is_whole`: inputs must not come in pieces."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self.n_embd = model.n_embd
        self.is_whole = model.is_encoder
        self.max_tokens, self.n_batch = limits(model)
        self.n_cells = self.max_tokens if not self.is_whole else 0
        self._ctx: Any = None
        self._memory: Any = None
        self.batch = Batch(self.n_batch)

    def open(self) -> None:
        """Made when the first input comes: most models are never asked for embeddings."""
        if self._ctx:
            return
        load, params = self._model.load, lib.llama_context_default_params()
        params.n_ctx = self.max_tokens if not self.is_whole else self.n_batch
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_seq_max = MAX_SEQUENCES
        params.n_threads = params.n_threads_batch = self._model.num_threads
        params.type_k = params.type_v = GGML_TYPE[load.kv_type]
        params.flash_attn_type = int(load.flash_attention)
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        self._ctx = lib.llama_init_from_model(self._model.handle, params)
        if not self._ctx:
            raise EngineError(f"llama.cpp cannot make a context for embeddings of {self.max_tokens} tokens")
        self._memory = lib.llama_get_memory(self._ctx)
        self._model.contexts.append(self._ctx)

    def decode(self) -> Rows:
        """Run `batch`; its hidden states, a row for each token in batch order."""
        batch = self.batch
        batch.struct.n_tokens = batch.size
        status = lib.llama_decode(self._ctx, batch.struct)
        if status != 0:
            raise EngineError(f"llama_decode failed with status {status} on {batch.size} tokens to embed")
        address = ctypes.cast(lib.llama_get_embeddings(self._ctx), ctypes.c_void_p).value
        if not address:
            raise EngineError("llama.cpp has no embeddings for the last batch")
        values = (ctypes.c_float * (batch.size * self.n_embd)).from_address(address)
        return np.ctypeslib.as_array(values).reshape(batch.size, self.n_embd)

    def forget(self, seq_id: int) -> None:
        if self._memory:
            lib.llama_memory_seq_rm(self._memory, seq_id, 0, -1)


def limits(model: LlamaModel) -> tuple[int, int]:
    """Tokens of one input, and of one batch."""
    affordable = max(MIN_BATCH, MAX_LOGITS // model.n_vocab)
    if model.is_encoder:
        longest = min(model.n_ctx_train, max(512, min(MAX_ENCODER_BATCH, 4 * affordable)))
        return longest, longest
    longest = min(model.n_ctx_train, model.load.embedding_ctx)
    return longest, min(model.load.n_batch, affordable, longest)
