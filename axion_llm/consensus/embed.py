"""Texts as vectors, for the distance between answers in prose. A loaded model's embeddings where the pool has them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from axion_llm.consensus.normal import folded, words

Vectors = npt.NDArray[np.float32]

DIMENSIONS = 1024
NGRAM = 4


class Embedder(Protocol):
    """`name` is told in the response, so that nobody takes one kind of nearness for another."""

    @property
    def name(self) -> str: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, [number of texts, dimensions]."""
        ...


class HashingEmbedder:
    """Words and character 4-grams hashed into a vector: nearness of wording, not of meaning."""

    name = "hashing (wording, not meaning)"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return hashed(texts)


def hashed(texts: Sequence[str]) -> Vectors:
    found = np.zeros((len(texts), DIMENSIONS), np.float32)
    for row, text in zip(found, texts, strict=True):
        for feature in _features(text):
            code = zlib.crc32(feature.encode())
            row[code % DIMENSIONS] += 1.0 if code & 0x80000000 else -1.0
    return normalised(found)


def _features(text: str) -> list[str]:
    plain = folded(text)
    padded = f" {' '.join(words(plain))} "
    return [*(f"w {w}" for w in words(plain)), *(padded[i : i + NGRAM] for i in range(max(0, len(padded) - NGRAM + 1)))]


def normalised(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return found


def medoid(vectors: Vectors, weights: Sequence[int]) -> int:
    """The vector with the greatest weighted mean likeness to the others; of equal ones the heaviest, then the first."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, 0.0)
    w = np.asarray(weights, np.float64)
    means = (likeness @ w) / np.maximum(w.sum() - w, 1e-9)
    return int(np.lexsort((-np.arange(len(w)), w, np.round(means, 6)))[-1])
