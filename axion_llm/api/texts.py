"""/v1/embeddings, /tokenize and /detokenize: bodies in, objects out."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from axion_llm.api.fields import ModelName, Strict, invalid, only
from axion_llm.api.room import check_length
from axion_llm.api.schemas import MAX_TOKEN_ID, Prompts
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Embedded, Loaded, Tokenized

MAX_INPUTS = 2048  # of one request, as OpenAI has it


def _not_too_many(inputs: list[Any]) -> list[Any]:
    if len(inputs) > MAX_INPUTS:
        raise invalid(f"must not have more than {MAX_INPUTS} inputs, has {len(inputs)}")
    return inputs


class EmbeddingRequest(Strict):
    model: ModelName
    input: Annotated[Prompts, AfterValidator(_not_too_many)]
    encoding_format: Literal["float", "base64"] | None = None  # None: float
    dimensions: Annotated[int, Field(ge=1)] | None = None
    embd_normalize: Annotated[Any, only(2)] = None  # llama-server's; 2 is the length of one that all vectors have
    user: str | None = None  # a label: changes nothing in the answer


class TokenizeRequest(Strict):
    model: ModelName
    content: str
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeRequest(Strict):
    model: ModelName
    tokens: list[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]]


def check_dimensions(request: EmbeddingRequest, info: Loaded) -> None:
    if request.dimensions is not None and request.dimensions > info.n_embd:
        message = f"dimensions: this model's embeddings have {info.n_embd}, {request.dimensions} cannot be had"
        raise BadRequest(message, param="dimensions")


def check_inputs(request: EmbeddingRequest, info: Loaded) -> None:
    longest = max((len(text) for text in request.input if isinstance(text, str)), default=0)
    if info.n_embedding_tokens:  # else the worker says what is wrong
        check_length(longest, info.n_embedding_tokens, "input")


def embedding_object(request: EmbeddingRequest, found: Embedded) -> dict[str, Any]:
    is_base64 = request.encoding_format == "base64"
    vectors = [shorten(vector, request.dimensions) for vector in found.vectors]
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if is_base64 else _floats(vector)}
        for index, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": used}


def shorten(vector: bytes, dimensions: int | None) -> bytes:
    """The first components only, at length one again: what OpenAI's models are trained for, others less so."""
    if dimensions is None or 4 * dimensions == len(vector):
        return vector
    kept = np.frombuffer(vector, "<f4")[:dimensions].astype(np.float64)
    norm = float(np.linalg.norm(kept))
    return (kept / norm if norm else kept).astype("<f4").tobytes()


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _floats(vector: bytes) -> list[float]:
    floats: list[float] = np.frombuffer(vector, "<f4").tolist()
    return floats


def tokens_object(found: Tokenized, *, with_pieces: bool) -> dict[str, Any]:
    """A piece that is no whole character is an array of its bytes."""
    if not with_pieces:
        return {"tokens": found.tokens}
    return {"tokens": [{"id": t, "piece": _piece(p)} for t, p in zip(found.tokens, found.pieces, strict=True)]}


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
