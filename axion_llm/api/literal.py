"""Text that looks like a model's control tokens, kept text: a user who writes <|im_end|> ends no turn.

Control words in what a request brings get a mark inside them before the chat template is rendered. In the prompt the
marks come out again, and their places go to the worker, which takes no control token across one of them. A request
without such words is rendered as if this did not exist.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_PREFIX = 2  # characters a control word is looked up by


class ControlWords:
    """The texts of a model's control tokens."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = frozenset(word for word in words if len(word) >= _PREFIX)
        self._lengths = sorted({len(word) for word in self._words})
        prefixes = sorted({word[:_PREFIX] for word in self._words})
        # As a look-ahead it finds words that overlap, too.
        self._start = re.compile("(?=" + "|".join(map(re.escape, prefixes)) + ")") if prefixes else None

    def starts(self, text: str) -> Iterator[int]:
        """Where a control word begins."""
        for match in self._start.finditer(text) if self._start else ():
            at = match.start()
            if any(text[at : at + length] in self._words for length in self._lengths):
                yield at


@lru_cache(maxsize=64)
def control_words(words: tuple[str, ...]) -> ControlWords:
    return ControlWords(words)


@dataclass(frozen=True)
class Unmarked:
    prompt: str
    literals: list[int]  # places inside of what looks like a control token
    images: list[tuple[int, int]]  # places, and the numbers of the images that belong there


class Marks:
    """Of one request: `put` into whatever is rendered, `take` out of the prompt."""

    def __init__(self, words: ControlWords) -> None:
        self._words = words
        self._secret = secrets.token_hex(8)  # so no text can have a mark
        self._mark = f"\ufdd0{self._secret}\ufdd0"

    def put(self, value: Any) -> Any:
        """A copy of strings, lists and objects with the marks in all their strings; keys too, they are rendered."""
        if isinstance(value, str):
            return self._marked(value)
        if isinstance(value, list | tuple):
            return [self.put(item) for item in value]
        if isinstance(value, dict):
            return {self.put(key): self.put(item) for key, item in value.items()}
        return value

    def image(self, number: int) -> str:
        """What stands for an image in a text."""
        return f"\ufdd0{self._secret}:{number}\ufdd0"

    def _marked(self, text: str) -> str:
        cuts = [start + 1 for start in self._words.starts(text)]
        if not cuts:
            return text
        parts = (text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))
        return self._mark.join(parts)

    def take(self, prompt: str) -> Unmarked:
        """The prompt without marks, and where they were."""
        if self._secret not in prompt:
            return Unmarked(prompt, [], [])
        # `(?:…)`: a template may write JSON in ASCII only.
        edge = r"(?:\ufdd0|\\ufdd0)"
        pieces = re.split(f"{edge}{self._secret}(:[0-9]+)?{edge}", prompt)
        literals, images, length = [], [], len(pieces[0])
        for number, text in zip(pieces[1::2], pieces[2::2], strict=True):
            if number:
                images.append((length, int(number[1:])))
            else:
                literals.append(length)
            length += len(text)
        return Unmarked("".join(pieces[::2]), literals, images)
