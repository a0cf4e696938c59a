"""Where an answer comes from, as the response's `consensus` object and as the stream's events tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from axion_llm.consensus import happenings as h
from axion_llm.consensus import vote
from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.plan import Plan


@dataclass
class Outcome:
    """Filled in as the run goes."""

    decided_by: str = ""
    agreement: float | None = None
    chosen: int | None = None
    is_early: bool = False
    judge: str | None = None  # the aggregator that wrote the answer
    judge_failures: list[tuple[str, str]] = field(default_factory=list)
    judge_usage: tuple[int, int, int] = (0, 0, 0)  # prompt, cached, completion tokens
    embedder: str | None = None
    finish_reason: str = "stop"
    concurrency: int = 1


def consensus_object(plan: Plan, attempts: Sequence[Attempt], outcome: Outcome, *, with_texts: bool) -> dict[str, Any]:
    asked = [a for a in attempts if a.asked is not None]
    return {
        "strategy": plan.method,
        "agreement": _rounded(outcome.agreement),
        "decided_by": outcome.decided_by,
        "early_stopped": outcome.is_early,
        "chosen": outcome.chosen,
        "experts": [expert_object(a, attempts, with_text=with_texts) for a in asked if a.error is None],
        "failed": [failure_object(a) for a in asked if a.error is not None],
        "judge": outcome.judge,
        "judge_failures": [{"model": model, "error": error} for model, error in outcome.judge_failures],
        "routing": {
            "reason": plan.reason,
            "signals": dict(plan.signals),
            "concurrency": outcome.concurrency,
            "embedder": outcome.embedder,
            "not_asked": [a.expert for a in attempts if a.asked is None],
        },
    }


def expert_object(attempt: Attempt, attempts: Sequence[Attempt], *, with_text: bool) -> dict[str, Any]:
    found = {
        "index": attempt.index,
        "model": attempt.expert,
        "sample": attempt.sample,
        "status": attempt.status,
        "content": attempt.text,
        "extracted": attempt.ballot.shown if attempt.ballot else None,
        "kind": attempt.ballot.kind if attempt.ballot else None,
        "weight": round(attempt.weight / vote.UNIT, 3),
        "confidence": _rounded(confidence(attempt, attempts)),
        "timings": timings(attempt),
        "usage": usage_object([attempt]),
    }
    if not with_text:
        del found["content"]
    return found


def failure_object(attempt: Attempt) -> dict[str, Any]:
    assert attempt.error is not None
    error = {"code": attempt.error.code, "message": attempt.error.public_message}
    return {"index": attempt.index, "model": attempt.expert, "sample": attempt.sample, "error": error}


def confidence(attempt: Attempt, attempts: Sequence[Attempt]) -> float | None:
    """Share of this expert's own samples that say the same; None for a single one, which shows nothing."""
    own = [a for a in attempts if a.expert == attempt.expert and a.is_ok]
    if len(own) < 2 or attempt.ballot is None:
        return None
    return sum(a.ballot is not None and a.ballot.key == attempt.ballot.key for a in own) / len(own)


def timings(attempt: Attempt) -> dict[str, float | None]:
    """Milliseconds: waiting for the model, then to the first token and to the end since it was there."""

    def span(start: float | None, end: float | None) -> float | None:
        return None if start is None or end is None else round((end - start) * 1e3, 1)

    return {
        "wait_ms": span(attempt.asked, attempt.started),
        "first_token_ms": span(attempt.started, attempt.first_token),
        "total_ms": span(attempt.started, attempt.ended),
    }


def usage_object(attempts: Sequence[Attempt], extra: tuple[int, int, int] = (0, 0, 0)) -> dict[str, Any]:
    """Every call is summed: each reads the prompt, though the cache may make that cheap."""
    prompt = sum(a.prompt_tokens for a in attempts) + extra[0]
    cached = sum(a.cached_tokens for a in attempts) + extra[1]
    completion = sum(a.completion_tokens for a in attempts) + extra[2]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def event_object(happening: h.Happening, attempts_have_texts: bool) -> dict[str, Any] | None:
    """What a stream tells of it; None for what is told otherwise."""
    match happening:
        case h.Planned(plan):
            experts = [{"index": i, "model": s.expert, "sample": s.sample} for i, s in enumerate(plan.slots)]
            routing = {"reason": plan.reason, "signals": dict(plan.signals)}
            return {"event": "plan", "strategy": plan.method, "experts": experts, "routing": routing}
        case h.Started(attempt):
            return {"event": "expert_started", "index": attempt.index, "model": attempt.expert}
        case h.Wrote(attempt, text):
            return {"event": "expert_text", "index": attempt.index, "model": attempt.expert, "text": text}
        case h.Ended(attempt, votes):
            shares = [{"answer": answer, "share": round(share, 4)} for answer, share in votes.items()]
            return {"event": "expert_ended", **_ended(attempt, attempts_have_texts), "votes": shares}
        case h.Decided(by, agreement, attempt):
            index = None if attempt is None else attempt.index
            return {"event": "decided", "decided_by": by, "agreement": _rounded(agreement), "chosen": index}
        case h.Aggregating(model):
            return {"event": "synthesis_started", "model": model}
    return None


def _ended(attempt: Attempt, with_text: bool) -> dict[str, Any]:
    if attempt.error is not None:
        return {**failure_object(attempt), "status": attempt.status}
    return expert_object(attempt, [], with_text=with_text)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
