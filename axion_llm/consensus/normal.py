"""Text made plain for comparison: Unicode forms, case, digits of all scripts, words."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+(?:[.,'’]\w+)*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


def western_digits(text: str) -> str:
    """Digits of every script as 0-9, with the Arabic decimal and thousands signs."""
    if text.isascii():
        return text
    out = [str(unicodedata.decimal(c)) if not c.isascii() and c.isdecimal() else c for c in text]
    return "".join(out).replace("٫", ".").replace("٬", ",")


def folded(text: str) -> str:
    return western_digits(unicodedata.normalize("NFKC", text)).casefold()


def unaccented(text: str) -> str:
    """Without marks on Latin letters: people and models leave them out."""
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in parts if not "\u0300" <= c <= "\u036f"))


def words(text: str) -> list[str]:
    """Words in order; scripts that do not write spaces are taken character by character."""
    found: list[str] = []
    for word in _WORD.findall(text):
        found += list(word) if _CJK.search(word) else [word]
    return found
