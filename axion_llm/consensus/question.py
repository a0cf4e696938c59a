"""What kind of answer a prompt wants: number, choice, yes or no, date, label, JSON, code, something short, or prose."""

from __future__ import annotations

import re

from axion_llm.consensus.ballot import Question
from axion_llm.consensus.normal import folded
from axion_llm.consensus.units import asked_unit

_CHOICE = re.compile(r"^[ \t]*\(?([A-Ha-h]|[1-8])[).:][ \t]*(\S.*?)[ \t]*$", re.M)
_YES_NO = re.compile(
    r"\b(?:yes or no|yes/no|ja oder nein|oui ou non|s[ií] o no|s[iì] o no|sim ou n[aã]o|да или нет|так чи ні|"
    r"ja of nee|"
    r"tak lub nie|evet m[iı] hay[iı]r|نعم أو لا|yes or with no|with yes or|with no or)\b|是或不是|是还是不是|是或否|"
    r"はいかいいえ|はい・いいえ|예 또는 아니요|yes or no",
    re.I,
)
_NUMBER = re.compile(
    r"\bhow (?:many|much|far|long|old|tall|heavy|big|fast)\b|\bcalculate\b|\bcompute\b|\bwhat(?:'s|"
    r" is) (?:the )?(?:\w+ ){0,2}(?:sum|product|"
    r"difference|average|height|weight|length|distance|speed|age|area|volume|temperature|amount|mean|total|"
    r"price|cost|square root|percentage|result)\b|\bwhat percentage\b|\bwhat number\b|"
    r"\bwhat is [-−]?\d|\bnumber of\b|\bwie ?viele?\b|\bberechne|\bcombien\b|\bcalcule[rz]?\b|"
    r"\bcu[aá]nt[oa]s?\b|\bcalcula\b|"
    r"\bquant[oiae]\b|\bcalcola\b|\bquantos?\b|\bсколько\b|\bвычисли|\bكم\b|\bاحسب\b|多少|几|いくつ|いくら|何(?:個|人|本)|얼마|몇|"
    r"\d\s*[-+*/×÷x^]\s*\d|\bpowers? of\b|\bthree quarters of\b|\bpopulation\b",
    re.I,
)
_DATE = re.compile(
    r"\bwhen (?:did|was|were|is|does|will)\b|\b(?:what|which) (?:date|day|year)\b|\bin (?:what|which) year\b|"
    r"\bthe date\b|"
    r"\bwann\b|\bdatum\b|\bwelche[ms]? jahr|\bquand\b|\bquelle (?:est la )?date\b|\ben quelle ann[eé]e\b|"
    r"\bcu[aá]ndo\b|"
    r"\bqu[eé] (?:fecha|a[nñ]o|d[ií]a)\b|\bquando\b|\bche anno\b|\bкогда\b|\bв каком году\b|\bдат[аеу]\b|متى|何年|"
    r"いつ|日付|哪一年|"
    r"什么时候|日期|언제",
    re.I,
)
_LABEL_LISTS = [
    re.compile(
        r"\b(?:one of|these labels|these categories|labels?|categor(?:y|ies)|options?)\b[^:\n]{0,40}:\s*([^.\n'\"]+)",
        re.I,
    ),
    re.compile(r"\b(?:as|als|comme|como|come)\s+((?:[\w-]+(?:, | oder | or | ou | o ))+[\w-]+)", re.I),
    re.compile(r"\b(?:kategorie|category|label|categoria)\b[^:\n]{0,20}(?:zu)?:\s*([^.\n'\"]+)", re.I),
    re.compile(r"\bis (?:this|it|the \w+)(?: \w+)?\s+((?:[\w-]+, )*[\w-]+ or [\w-]+)\s*\?", re.I),
]
_CLASSIFY = re.compile(
    r"\bclass?if|\bklassifizier|\bbestimme\b|\betichetta|\blabels?\b|\bsentiment\b|\bcategor|\bkategorie|"
    r"\bordne\b|\bclassez\b|\bis this \w+ \w+ or\b|\btag the\b",
    re.I,
)
_JSON = re.compile(r"\bjson\b", re.I)
_ORS = re.compile(r",\s*(?:or|oder|ou|o|and|und)\s+|\s+(?:or|oder|ou|o)\s+|,\s*", re.I)
_PROSE = re.compile(
    r"\b(?:write|draft|compose|rewrite|summari[sz]e|explain|describe|tell me (?:a|about)|poem|story|essay|email|"
    r"letter)\b",
    re.I,
)


def question_of(text: str, *, wants_json: bool, code: str | None) -> Question:
    """`wants_json`: the request's response_format asks for it."""
    if not wants_json and len(choices := _choices(text)) >= 2:
        return Question("choice", text, choices=choices)
    if wants_json or (_JSON.search(text) and not code):
        return Question("json", text)
    plain = folded(text)
    if code:
        return Question("code", text)
    if _YES_NO.search(plain):
        return Question("yes_no", text)
    if labels := _labels(text):
        return Question("label", text, labels=labels)
    if _DATE.search(plain) and not re.search(r"\bhow (?:many|much|long)\b", plain):
        return Question("date", text)
    if _NUMBER.search(plain) and not (_PROSE.search(plain) and len(plain) > 120):
        return Question("number", text, unit=asked_unit(plain))
    return Question("prose" if _PROSE.search(plain) else "short", text)


def _choices(text: str) -> tuple[tuple[str, str], ...]:
    """Lines like "A) Mars", when their letters follow each other from the first."""
    found: list[tuple[str, str]] = [(letter.upper(), words) for letter, words in _CHOICE.findall(text)]
    letters = [letter for letter, _ in found]
    for first in ("A", "1"):
        expected = [chr(ord(first) + i) for i in range(len(letters))]
        if letters == expected:
            return tuple(found)
    return ()


def _labels(text: str) -> tuple[str, ...]:
    if not _CLASSIFY.search(text):
        return ()
    for pattern in _LABEL_LISTS:
        if match := pattern.search(text):
            parts = [part.strip(" '\"“”‘’()") for part in _ORS.split(match.group(1))]
            labels = [part for part in parts if 0 < len(part) <= 40]
            if len(labels) >= 2:
                return tuple(labels)
    return ()
