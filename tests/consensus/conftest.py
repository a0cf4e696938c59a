"""An orchestrator over a fake pool, and how a request is run to its end."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from axion_llm.consensus import happenings as h
from axion_llm.consensus.experts import Roster
from axion_llm.consensus.options import ConsensusRequest
from axion_llm.consensus.orchestrator import Orchestrator, Task
from axion_llm.worker.messages import Generate
from tests.fakes.fake_pool import FakePool, Script, spec

NUMBER = "How many eggs are in a box?"
PROSE = "Write a poem about eggs."


@dataclass
class Answer:
    text: str
    consensus: dict[str, Any]
    usage: dict[str, Any]
    finish_reason: str
    told: list[h.Happening]

    def statuses(self) -> dict[str, str]:
        ended = [item.attempt for item in self.told if isinstance(item, h.Ended)]
        return {a.expert: a.status for a in ended}


def script(text: str, **fields: Any) -> Callable[[Generate], Script]:
    return lambda request: Script(pieces=[text[i : i + 4] for i in range(0, len(text), 4)], **fields)


def pool_of(**experts: Callable[[Generate], Script]) -> FakePool:
    """Its models are all loaded."""
    pool = FakePool(specs=[spec(name) for name in experts], scripts=dict(experts))
    pool.states = dict.fromkeys(experts, "ready")
    return pool


def task(model: str = "consensus/vote", prompt: str = NUMBER, **options: Any) -> Task:
    fields = {k: options.pop(k) for k in ("max_tokens", "temperature", "seed", "response_format") if k in options}
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "consensus": options, **fields}
    return Task(f"t-{uuid.uuid4().hex}", ConsensusRequest.model_validate(body))


async def ask(pool: FakePool, wanted: Task, orchestrator: Orchestrator | None = None) -> Answer:
    orchestrator = orchestrator or Orchestrator(pool, Roster())
    told: list[h.Happening] = []
    async with aclosing(orchestrator.run(wanted, orchestrator.plan(wanted))) as happenings:
        async for happening in happenings:
            told.append(happening)
    done = told[-1]
    assert isinstance(done, h.Done)
    text = "".join(item.text for item in told if isinstance(item, h.Text))
    return Answer(text, done.consensus, done.usage, done.finish_reason, told)
