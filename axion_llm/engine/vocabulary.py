"""Text to tokens and back, for those who ask for nothing else. Safe beside a running step."""

from __future__ import annotations

from axion_llm.engine.binding import LlamaModel
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Detokenize, Detokenized, Tokenize, Tokenized


class Vocabulary:
    def __init__(self, model: LlamaModel) -> None:
        self._model = model

    def tokenize(self, request: Tokenize) -> Tokenized:
        tokens = self._model.tokenize(request.content, request.add_special, request.parse_special)
        return Tokenized(request.request_id, tokens, [self._bytes(token) for token in tokens])

    def _bytes(self, token: int) -> bytes:
        """Control tokens too, as they are written."""
        return self._model.piece(token) or self._model.piece_text(token).encode()

    def detokenize(self, request: Detokenize) -> Detokenized:
        if any(not 0 <= token < self._model.n_vocab for token in request.tokens):
            raise BadRequest(f"tokens: token ids of this model are 0 to {self._model.n_vocab - 1}", param="tokens")
        return Detokenized(request.request_id, self._model.detokenize(request.tokens))
