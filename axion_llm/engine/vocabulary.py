"""Text to tokens and back. Everything here is safe beside a running step."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property

from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.sequence import Placed
from axion_llm.engine.vision import Part, Vision
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Detokenize, Detokenized, Generate, Tokenize, Tokenized

Span = tuple[int, int]


class Prompt(list[int]):
    """A prompt's tokens, and the pictures among them, which have ids below zero."""

    pictures: list[Placed]


class Vocabulary:
    def __init__(self, model: LlamaModel, vision: Vision | None = None) -> None:
        self._model = model
        self._vision = vision
        self.control_texts = model.control_texts
        self._public: tuple[str, list[int]] = ("", [])

    @cached_property
    def _control(self) -> re.Pattern[str]:
        longest_first = sorted(self.control_texts, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    # ---- a prompt

    def prompt_tokens(self, request: Generate) -> list[int]:
        """The prompt's tokens; BadRequest for ids that the vocabulary does not have."""
        prompt = request.prompt
        if isinstance(prompt, list):
            self._check(prompt, "prompt")
            return list(prompt)
        add_special = self._adds_special(request, prompt)
        if request.images:
            return self._tokens_with_images(prompt, request, add_special)
        return self._text_tokens(prompt, request, request.literals, add_special)

    def _adds_special(self, request: Generate, prompt: str) -> bool:
        """A chat template that writes the BOS itself must not get a second one."""
        bos = self._model.piece_text(self._model.bos)
        return request.add_special and not (bos and prompt.startswith(bos))

    def num_public_tokens(self, request: Generate, tokens: list[int]) -> int:
        """Of its prompt's first tokens, those that any tenant may know: of the operator's own text."""
        if not request.public_chars or not request.tenant or isinstance(request.prompt, list):
            return 0
        text = request.prompt[: request.public_chars]
        if self._public[0] != text:  # a model has one such text at a time
            self._public = text, self._model.tokenize(text, self._adds_special(request, text), request.parse_special)
        return common_prefix(self._public[1], tokens)  # without a token that reaches over the end of the text

    def _text_tokens(self, text: str, request: Generate, literals: list[int], add_special: bool) -> list[int]:
        if literals and request.parse_special:
            return self._tokens_with_literals(text, literals, add_special)
        return self._model.tokenize(text, add_special, request.parse_special)

    def _tokens_with_images(self, text: str, request: Generate, add_special: bool) -> Prompt:
        """Takes the time that encoding takes, for images that have not been seen lately."""
        if self._vision is None:
            raise BadRequest("messages: this model takes no images", param="messages")
        prompt, at = Prompt(), 0
        prompt.pictures = []
        for image in request.images:
            literals = [place - at for place in request.literals if at < place < image.at]
            prompt += self._text_tokens(text[at : image.at], request, literals, add_special and at == 0)
            self._add_image(prompt, self._vision.parts(image.data, request.tenant))
            at = image.at
        literals = [place - at for place in request.literals if place > at]
        prompt += self._text_tokens(text[at:], request, literals, False)
        return prompt

    def _add_image(self, prompt: Prompt, parts: list[Part]) -> None:
        for part in parts:
            if isinstance(part, list):
                prompt += part
                continue
            prompt.pictures.append(Placed(len(prompt), len(prompt) + len(part.ids), part))
            prompt += part.ids

    def _tokens_with_literals(self, prompt: str, literals: list[int], add_special: bool) -> list[int]:
        """As llama.cpp, which cuts a text at its control tokens and then tokenises what is between them."""
        tokens = [t for t in self._model.tokenize("", True, False) if t == self._model.bos] if add_special else []
        for (start, end), is_literal in fragments(len(prompt), self._controls(prompt, literals), literals):
            tokens += self._model.tokenize(prompt[start:end], False, not is_literal)
        return tokens

    def _controls(self, prompt: str, literals: list[int]) -> list[Span]:
        """Where control tokens are meant to be."""
        found, at = [], 0
        while match := self._control.search(prompt, at):
            start, end = match.span()
            is_real = bisect_right(literals, start) == bisect_left(literals, end)
            found += [(start, end)] if is_real else []
            at = end if is_real else start + 1
        return found

    # ---- for those who ask for nothing else

    def tokenize(self, request: Tokenize) -> Tokenized:
        tokens = self._model.tokenize(request.content, request.add_special, request.parse_special)
        return Tokenized(request.request_id, tokens, [self._bytes(token) for token in tokens])

    def _bytes(self, token: int) -> bytes:
        """Control tokens too, as they are written."""
        return self._model.piece(token) or self._model.piece_text(token).encode()

    def detokenize(self, request: Detokenize) -> Detokenized:
        self._check(request.tokens, "tokens")
        return Detokenized(request.request_id, self._model.detokenize(request.tokens))

    def _check(self, tokens: list[int], param: str) -> None:
        wrong = next((t for t in tokens if not 0 <= t < self._model.n_vocab), None)
        if wrong is not None:
            raise BadRequest(f"{param}: token {wrong} is not in 0..{self._model.n_vocab - 1}", param=param)


def fragments(length: int, controls: list[Span], literals: list[int]) -> Iterator[tuple[Span, bool]]:
    """A text cut around those stretches between control tokens that have a literal inside (True)."""
    stretches = zip([0, *(end for _, end in controls)], [*(start for start, _ in controls), length], strict=True)
    at = 0
    for start, end in stretches:
        if bisect_right(literals, end) > bisect_left(literals, start):
            if at < start:
                yield (at, start), False
            yield (start, end), True
            at = end
    if at < length:
        yield (at, length), False


def common_prefix(a: list[int], b: list[int]) -> int:
    differ = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), None)
    return min(len(a), len(b)) if differ is None else differ
