"""Embeddings of a model that is loaded anyway; a model is never loaded for them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from axion_llm.consensus.embed import Vectors
from axion_llm.errors import ServiceError
from axion_llm.pool.interface import ModelPool
from axion_llm.worker.messages import Embed

MAX_CHARS = 6000  # of a text: its beginning says what it is about


class PoolEmbedder:
    """Takes the smallest of the running models; its likeness is one of meaning as far as that model has any."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._last = "none"

    @property
    def name(self) -> str:
        return f"hidden states of {self._last}"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Raises an AxionError when no running model can."""
        running = self._pool.running()
        if not running:
            raise ServiceError("no model is loaded")
        name = min(running, key=lambda n: running[n].info.size_bytes)
        request = Embed(f"embed-{uuid.uuid4().hex}", [text.strip()[:MAX_CHARS] for text in texts])
        async with self._pool.lease(name) as model:
            answer = await model.embed(request)
        self._last = name
        vectors = [np.frombuffer(v, dtype="<f4") for v in answer.vectors]
        return _centred(np.stack(vectors).astype(np.float32))


def _centred(vectors: Vectors) -> Vectors:
    """Hidden states of a causal model all point much the same way: what tells them apart is what is left of that."""
    if len(vectors) < 3:
        return vectors
    centred = vectors - vectors.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    found: Vectors = (centred / np.where(lengths > 1e-6, lengths, 1)).astype(np.float32)
    return found
