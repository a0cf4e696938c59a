"""The prompt as a part of the answer, with the log probability of each of its tokens: how benchmarks score a text."""

from __future__ import annotations

from axion_llm.engine.binding import LlamaModel, Logits
from axion_llm.engine.sampler import token_logprobs
from axion_llm.engine.sequence import Sequence
from axion_llm.worker.messages import Piece, TokenLogprob


class PromptLogprobs:
    """Of one sequence; `add` the logits of its prompt in order, from the start again when it is computed anew."""

    def __init__(self) -> None:
        self._found: list[TokenLogprob] = []

    def add(self, model: LlamaModel, sequence: Sequence, start: int, logits: Logits) -> None:
        """`logits`: [num_tokens, n_vocab], of the tokens from position `start` on; each tells of the token after it."""
        if start == 0:
            self._found = [_unconditional(model, sequence.tokens[0])]
        top = sequence.request.top_logprobs or 0
        for row, token in zip(logits, sequence.tokens[start + 1 : sequence.num_prompt], strict=False):
            self._found.append(token_logprobs(model, row, token, top))

    def take(self) -> list[TokenLogprob]:
        found, self._found = self._found, []
        return found


def echo(model: LlamaModel, sequence: Sequence, logprobs: list[TokenLogprob]) -> Piece:
    """The prompt as the first piece of the answer. A BOS that we put before it was not in the request."""
    request = sequence.request
    if isinstance(request.prompt, str):
        text = request.prompt
        if sequence.tokens[0] == model.bos and not text.startswith(model.piece_text(model.bos)):
            logprobs = logprobs[1:]
    else:
        text = model.detokenize(sequence.tokens[: sequence.num_prompt])
    return Piece(request.request_id, text, 0, logprobs)


def _unconditional(model: LlamaModel, token: int) -> TokenLogprob:
    """Nothing comes before the first token, so there is nothing to say about it."""
    return TokenLogprob(token, model.piece(token) or model.piece_text(token).encode(), None)
