"""Dates in text -> YYYY-MM-DD, as far as they say: 1945, 1969-07, 1969-07-20."""

from __future__ import annotations

import re

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar janvier enero gennaio janeiro января январь",
            "february feb februar février fevrier febrero febbraio fevereiro февраля февраль",
            "march mar märz maerz mars marzo março marco марта март",
            "april apr avril abril aprile апреля апрель",
            "may mai mayo maggio maio мая май",
            "june jun juni juin junio giugno junho июня июнь",
            "july jul juli juillet julio luglio julho июля июль",
            "august aug août aout agosto августа август",
            "september sep sept septembre septiembre settembre setembro сентября сентябрь",
            "october oct oktober octobre octubre ottobre outubro октября октябрь",
            "november nov novembre noviembre novembro ноября ноябрь",
            "december dec dezember décembre decembre diciembre dicembre dezembro декабря декабрь",
        ),
        1,
    )
    for name in names.split()
}
_MONTH = "(" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\.?"
_ISO = re.compile(r"(?<!\d)(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)")
_CJK = re.compile(r"(\d{4})\s*[年년]\s*(?:(\d{1,2})\s*[月월])?\s*(?:(\d{1,2})\s*[日일])?")
_DAY_FIRST = re.compile(
    rf"(?<!\d)(\d{{1,2}})(?:st|nd|rd|th|\.|er|º)?\s+(?:of\s+|de\s+|d')?{_MONTH}(?:\s+(?:de\s+)?|,\s*)(\d{{4}})"
)
_MONTH_FIRST = re.compile(rf"\b{_MONTH}\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})")
_NUMBERS = re.compile(r"(?<!\d)(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?!\d)")
_MONTH_YEAR = re.compile(rf"\b{_MONTH}\s+(?:de\s+)?(\d{{4}})\b")
_YEAR = re.compile(r"(?<![\d.,])(1\d{3}|20\d{2}|[5-9]\d{2})(?![\d.,]\d|\d)")


def date_key(text: str, *, year_only: bool, day_first: bool) -> str | None:
    """The first date of a folded text; `day_first` settles 03/04/2023, except that a point always means it."""
    found = sorted(_dates(text, day_first), key=lambda pair: pair[0])
    if found:
        key = found[0][1]
        return key[:4] if year_only else key
    year = _YEAR.search(text)
    return year.group(1) if year else None


def full_date(text: str, *, day_first: bool) -> str | None:
    """The first date that names a day."""
    return next((key for _, key in sorted(_dates(text, day_first)) if len(key) == 10), None)


def _dates(text: str, day_first: bool) -> list[tuple[int, str]]:
    found = [(m.start(), _key(m[1], m[2], m[3])) for m in _ISO.finditer(text)]
    found += [(m.start(), _key(m[1], m[2], m[3])) for m in _CJK.finditer(text)]
    found += [(m.start(), _key(m[3], _MONTHS[m[2]], m[1])) for m in _DAY_FIRST.finditer(text)]
    found += [(m.start(), _key(m[3], _MONTHS[m[1]], m[2])) for m in _MONTH_FIRST.finditer(text)]
    for m in _NUMBERS.finditer(text):
        first, second = int(m[1]), int(m[3])
        is_day_first = m[2] == "." or first > 12 or (day_first and second <= 12)
        day, month = (first, second) if is_day_first else (second, first)
        found.append((m.start(), _key(m[4], month, day)))
    if not found:
        found = [(m.start(), _key(m[2], _MONTHS[m[1]], None)) for m in _MONTH_YEAR.finditer(text)]
    return found


def _key(year: str, month: str | int | None, day: str | int | None) -> str:
    key = f"{int(year):04d}"
    if month is not None:
        key += f"-{int(month):02d}"
        if day is not None:
            key += f"-{int(day):02d}"
    return key
