"""What an answer comes down to (thin)."""

from __future__ import annotations

from axion_llm.consensus.ballot import Ballot, Question
from axion_llm.consensus.normal import folded, words


def ballot(question: Question, text: str) -> Ballot | None:
    plain = " ".join(words(folded(text)))
    return Ballot("short", plain, text.strip()) if 0 < len(plain) <= 80 else None
