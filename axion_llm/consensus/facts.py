"""What a request shows before any model has seen it: needs, language, code, domain, the kind of answer it wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from axion_llm.consensus.ballot import Question
from axion_llm.consensus.options import ConsensusRequest


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
    return Facts()
