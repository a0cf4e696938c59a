"""What a request shows before any model has seen it: needs, language, code, domain, the kind of answer it wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from axion_llm.api.schemas import Message
from axion_llm.api.structured import wants_json
from axion_llm.api.tools.plan import requested
from axion_llm.consensus.ballot import Question
from axion_llm.consensus.domain import domain_of
from axion_llm.consensus.language import code_of, language_of
from axion_llm.consensus.options import ConsensusRequest
from axion_llm.consensus.question import question_of

SEEN_CHARS = 2000


@dataclass(frozen=True)
class Facts:
    has_images: bool = False
    has_tools: bool = False
    language: str = "unknown"  # ISO 639-1
    code: str | None = None  # the programming language it is about
    domain: str = "unknown"
    question: Question = field(default_factory=Question)

    def signals(self) -> dict[str, Any]:
        return {"language": self.language, "code": self.code, "domain": self.domain, "kind": self.question.kind}


def facts_of(request: ConsensusRequest) -> Facts:
    """Microseconds; language and code are told from the last thing the user said."""
    text = ends(last_user_text(request.messages))
    code = code_of(text)
    return Facts(
        has_images=any(isinstance(m.content, list) for m in request.messages),
        has_tools=requested(request) is not None,
        language=language_of(text),
        code=code,
        domain="code" if code else domain_of(text),
        question=question_of(text, wants_json=wants_json(request), code=code),
    )


def ends(text: str) -> str:
    """A long text's beginning and end: there people say what they want, and no prompt may hold the event loop up."""
    return text if len(text) <= 2 * SEEN_CHARS else f"{text[:SEEN_CHARS]}\n{text[-SEEN_CHARS:]}"


def last_user_text(messages: Sequence[Message]) -> str:
    return next((m.text for m in reversed(messages) if m.role == "user"), "")
