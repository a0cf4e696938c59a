"""An answer as text -> what it comes down to, by the kind of answer that the question wants.

    Question says number    96, "There are 96 eggs.", "**96**", "12 rows times 8 = 96"  ->  one key

What cannot be told is None: such an answer votes for nothing, which is better than a wrong vote.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from axion_llm.consensus.ballot import Ballot, Kind, Question
from axion_llm.consensus.codekey import code_key
from axion_llm.consensus.dates import date_key, full_date
from axion_llm.consensus.jsonkey import json_key
from axion_llm.consensus.language import language_of
from axion_llm.consensus.lexicon import CHOOSING, DECIMAL_COMMA, FILLER, MARKERS, NO, YES
from axion_llm.consensus.normal import folded, unaccented, words
from axion_llm.consensus.units import Quantity, in_unit, quantities, spelled

MAX_SHORT_CHARS = 160

_BOLD = re.compile(r"\*\*(.+?)\*\*|\\boxed\{(.+?)\}", re.S)


def ballot(question: Question, text: str) -> Ballot | None:
    return _EXTRACTORS[question.kind](question, text)


# ---- numbers


def _number(question: Question, text: str) -> Ballot | None:
    plain = folded(text)
    has_comma = language_of(question.text) in DECIMAL_COMMA
    if (value := spelled(plain)) is not None:
        return _number_ballot(question, Quantity(value, None, 0, 0), text)
    picked = _pick(question, plain, quantities(plain, has_comma), has_comma)
    if picked is None:
        for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)?", plain)[::-1]:
            if (value := spelled(word)) is not None:
                return _number_ballot(question, Quantity(value, None, 0, 0), word)
        return None
    return _number_ballot(question, picked, plain[picked.start : picked.end].strip())


def _pick(question: Question, text: str, found: list[Quantity], has_comma: bool) -> Quantity | None:
    """Set apart (bold, boxed), else the first behind the last marker, else what is not the question's own number."""
    if question.unit is not None and len(found) > 1:
        wanted = in_unit(Quantity(Decimal(1), None, 0, 0), question.unit).unit
        found = [q for q in found if q.unit == wanted] or found
    if len(found) <= 1:
        return found[0] if found else None
    for match in reversed(list(_BOLD.finditer(text))):
        if inside := [q for q in found if match.start() <= q.start < match.end()]:
            return inside[-1]
    for at in reversed([m.end() for m in MARKERS.finditer(text)]):
        if behind := [q for q in found if q.start >= at - 1]:
            return behind[0]
    asked = {q.value for q in quantities(folded(question.text), has_comma)}
    new = [q for q in found if q.value not in asked] or found
    return new[-1] if len(text) > 80 else new[0]


def _number_ballot(question: Question, quantity: Quantity, shown: str) -> Ballot:
    quantity = in_unit(quantity, question.unit)
    return Ballot("number", f"number {quantity.key}", shown.strip(" .*\n"))


# ---- what is chosen from a list


def _choice(question: Question, text: str) -> Ballot | None:
    letters = [letter for letter, _ in question.choices]
    letter = _chosen_letter(text, letters) or _chosen_text(question, text)
    return None if letter is None else Ballot("choice", f"choice {letter}", letter)


def _chosen_letter(text: str, letters: list[str]) -> str | None:
    span = f"[{''.join(letters)}{''.join(letters).lower()}]"
    alone = re.fullmatch(rf"\W*({span})\W*", text.strip())
    if alone:
        return alone.group(1).upper()
    begins = re.match(rf"\s*\**\(?({span})[).:](?:\s|\*|$)", text)
    if begins:
        return begins.group(1).upper()
    marked = re.findall(
        rf"(?:{CHOOSING})"
        rf"[^\n.]{{0,25}}?(?<![A-Za-z0-9_])\(?\**({span})(?![A-Za-z0-9_])",
        text,
        re.I,
    )
    if marked:
        return str(marked[-1]).upper()
    correct = re.findall(rf"(?<![A-Za-z0-9_])({span.upper()})(?![A-Za-z0-9_])\)? is (?:the )?(?:correct|right)", text)
    if correct:
        return str(correct[-1]).upper()
    bold = re.findall(rf"\*\*\(?({span})[).:*]", text)
    return str(bold[-1]).upper() if bold else None


def _chosen_text(question: Question, text: str) -> str | None:
    plain = f" {' '.join(words(folded(text)))} "
    found = [letter for letter, option in question.choices if f" {' '.join(words(folded(option)))} " in plain]
    return found[0] if len(found) == 1 else None


def _label(question: Question, text: str) -> Ballot | None:
    plain = f" {' '.join(words(unaccented(folded(text))))} "
    places: dict[str, int] = {}
    for label in question.labels:
        wanted = f" {' '.join(words(unaccented(folded(label))))} "
        at = _not_negated(plain, wanted)
        if at >= 0:
            places[label] = at
    if not places:
        return None
    first = min(places, key=lambda label: (places[label], -len(label)))
    return Ballot("label", f"label {unaccented(folded(first))}", first)


def _not_negated(text: str, wanted: str) -> int:
    at = text.find(wanted)
    while at >= 0:
        before = text[:at].rsplit(" ", 2)[-2:]
        if not {"not", "nicht", "pas", "no", "non", "не"} & set(before):
            return at
        at = text.find(wanted, at + 1)
    return -1


def _yes_no(question: Question, text: str) -> Ballot | None:
    found = words(folded(text))
    if not found:
        return None
    lead = "".join(found[:2]) if not found[0].isascii() else found[0]
    for word in (lead, found[0], unaccented(found[0])):
        if word in NO or word.startswith("不"):
            return Ballot("yes_no", "yes_no no", "no")
        if word in YES:
            return Ballot("yes_no", "yes_no yes", "yes")
    marked = MARKERS.split(folded(text))
    if len(marked) > 1 and (rest := words(marked[-1])):
        if rest[0] in NO:
            return Ballot("yes_no", "yes_no no", "no")
        if rest[0] in YES:
            return Ballot("yes_no", "yes_no yes", "yes")
    return None


# ---- the rest


def _date(question: Question, text: str) -> Ballot | None:
    wants_year = bool(
        re.search(r"\byear\b|\bjahr\b|\bann[eé]e\b|\baño\b|\banno\b|году|何年|哪一年", folded(question.text))
    )
    wants_day = re.search(r"\b(?:date|day|datum|tag|fecha|d[ií]a|giorno|jour)\b|дат|день|日|天", folded(question.text))
    key = date_key(folded(text), year_only=wants_year and not wants_day, day_first=not _is_english(question.text))
    return None if key is None else Ballot("date", f"date {key}", key)


def _is_english(text: str) -> bool:
    return bool(re.search(r"\b(?:what|when|which|the|is|of)\b", text, re.I))


def _json(question: Question, text: str) -> Ballot | None:
    key = json_key(text)
    return None if key is None else Ballot("json", f"json {key}", key)


def _code(question: Question, text: str) -> Ballot | None:
    key = code_key(text)
    return None if key is None else Ballot("code", f"code {key}", key[:80])


def _short(question: Question, text: str) -> Ballot | None:
    """A short answer less the question's own words: "The capital of France is Paris." comes down to paris."""
    stripped = text.strip()
    if len(stripped) > MAX_SHORT_CHARS or len(re.findall(r"[.!?。！？](?:\s|$)", stripped)) > 1:
        return None
    asked = set(words(unaccented(folded(question.text))))
    said = words(unaccented(_plain_numbers(folded(stripped))))
    if day := full_date(folded(stripped), day_first=not _is_english(question.text)):
        return Ballot("short", f"short {day}", day)
    kept = [w for w in said if w not in asked and w not in FILLER] or said
    if all(w[0].isdigit() for w in kept) and (number := _number(question, text)):  # 4^3 = 64
        return Ballot("short", number.key, number.shown)
    return Ballot("short", f"short {' '.join(kept)}", stripped.strip(' .*"“”')) if kept else None


def _plain_numbers(text: str) -> str:
    """30.00 and 30 are one word."""
    for q in reversed(quantities(text)):
        value, _, unit = q.key.partition("|")
        text = f"{text[: q.start]} {value} {unit} {text[q.end :]}"
    return text


def _prose(question: Question, text: str) -> Ballot | None:
    return None


_EXTRACTORS: dict[Kind, Callable[[Question, str], Ballot | None]] = {
    "number": _number,
    "choice": _choice,
    "yes_no": _yes_no,
    "date": _date,
    "label": _label,
    "json": _json,
    "code": _code,
    "short": _short,
    "prose": _prose,
}
