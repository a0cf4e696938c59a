"""Questions with known answers: a small set of our own, made by generators, and sets that users bring as JSON lines."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from axion_llm.consensus.ballot import Question
from axion_llm.consensus.domain import domain_of
from axion_llm.consensus.extract import ballot
from axion_llm.consensus.language import code_of
from axion_llm.consensus.question import question_of
from axion_llm.errors import ConfigError


@dataclass(frozen=True)
class Item:
    prompt: str
    answer: str  # as a good answer might put it; compared by what it comes down to
    domain: str

    @cached_property
    def question(self) -> Question:
        return question_of(self.prompt, wants_json=False, code=code_of(self.prompt))

    def is_right(self, text: str) -> bool:
        """Does the text come down to the known answer? A text that comes down to nothing does not."""
        found = self.key_of(text)
        return found is not None and found == self.key

    @cached_property
    def key(self) -> str | None:
        return self.key_of(self.answer)

    def key_of(self, text: str) -> str | None:
        found = ballot(self.question, text)
        return found.key if found else None


def item_of(prompt: str, answer: str, domain: str | None = None) -> Item:
    """With the domain that the router sees, so that weights apply to what they were measured on."""
    return Item(prompt, answer, domain or ("code" if code_of(prompt) else domain_of(prompt)))


def read_items(path: Path) -> list[Item]:
    """Lines {"prompt": ..., "answer": ..., "domain": ... (optional)}; ConfigError names the line that is none."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            item = item_of(str(raw["prompt"]), str(raw["answer"]), raw.get("domain"))
        except (ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f'{path}, line {number}: needs {{"prompt": "…", "answer": "…"}}: {exc!r}') from None
        if ballot(item.question, item.answer) is None:
            message = (
                f"{path}, line {number}: the answer {item.answer[:60]!r} cannot be compared as a {item.question.kind}"
            )
            raise ConfigError(f"{message}; give a short one")
        found.append(item)
    if not found:
        raise ConfigError(f"{path}: no items in it")
    return found


# ---- our own set


def _arithmetic(draw: random.Random) -> tuple[str, str]:
    a, b = draw.randint(2, 60), draw.randint(2, 30)
    sign, value = draw.choice([("+", a + b), ("-", a - b), ("*", a * b)])
    return f"What is {a} {sign} {b}? Give the number.", str(value)


def _story(draw: random.Random) -> tuple[str, str]:
    boxes, each, lost = draw.randint(2, 9), draw.randint(3, 12), draw.randint(1, 5)
    thing = draw.choice(["apples", "pens", "books", "cups"])
    prompt = f"A shop has {boxes} boxes with {each} {thing} each and sells {lost} {thing}. How many {thing} are left?"
    return prompt, str(boxes * each - lost)


_CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima",
    "Canada": "Ottawa", "Kenya": "Nairobi", "Norway": "Oslo", "Greece": "Athens", "Chile": "Santiago", "Cuba": "Havana",
}  # fmt: skip


def _choice(draw: random.Random) -> tuple[str, str]:
    country = draw.choice(sorted(_CAPITALS))
    options = [_CAPITALS[country], *draw.sample(sorted(set(_CAPITALS.values()) - {_CAPITALS[country]}), 3)]
    draw.shuffle(options)
    lines = "\n".join(f"{letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
    return f"What is the capital of {country}?\n{lines}", "ABCD"[options.index(_CAPITALS[country])]


def _yes_no(draw: random.Random) -> tuple[str, str]:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return f"Is {a} larger than {b}? Answer yes or no.", "yes" if a > b else "no"


def _extraction(draw: random.Random) -> tuple[str, str]:
    day, month, year = draw.randint(1, 28), draw.choice(["March", "June", "October"]), draw.randint(1990, 2024)
    amount = draw.randint(20, 900)
    text = f"Invoice {draw.randint(100, 999)}, issued {month} {day}, {year}, total {amount} dollars."
    return f"What date is on this invoice? '{text}'", f"{month} {day}, {year}"


_SENTENCES = {
    "German": ["Der Hund schläft unter dem Tisch.", "Wir fahren morgen nach Hause."],
    "French": ["Le chat dort sous la table.", "Nous rentrons demain à la maison."],
    "Spanish": ["El perro duerme debajo de la mesa.", "Mañana volvemos a casa."],
    "Italian": ["Il gatto dorme sotto il tavolo.", "Domani torniamo a casa."],
}


def _language(draw: random.Random) -> tuple[str, str]:
    language = draw.choice(sorted(_SENTENCES))
    sentence = draw.choice(_SENTENCES[language])
    return f"Label the language with one of: {', '.join(sorted(_SENTENCES))}. The sentence is '{sentence}'", language


def _code(draw: random.Random) -> tuple[str, str]:
    name, n = draw.choice(["add", "plus", "increase"]), draw.randint(1, 99)
    prompt = f"Write a Python function {name}_{n}(x) that returns x plus {n}. Give only the code."
    return prompt, f"```python\ndef {name}_{n}(x):\n    return x + {n}\n```"


GENERATORS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "arithmetic": _arithmetic,
    "story": _story,
    "choice": _choice,
    "yes_no": _yes_no,
    "extraction": _extraction,
    "language": _language,
    "code": _code,
}


def built_in(num_items: int, seed: int = 0, kinds: Sequence[str] = ()) -> list[Item]:
    """The kinds in turn. The same seed gives the same items; no two of them are equal."""
    draw = random.Random(seed)
    chosen = [GENERATORS[kind] for kind in (kinds or GENERATORS)]
    found: dict[str, Item] = {}
    for turn in range(20 * num_items):
        if len(found) == num_items:
            break
        prompt, answer = chosen[turn % len(chosen)](draw)
        found.setdefault(prompt, item_of(prompt, answer))
    return list(found.values())
