"""The LiveMind orchestrator: carries out a plan, asks the strategies what to do next, and tells what happens.

plan      route.py      which experts, which way, why                      pure
run       crew.py       their calls against the pool, each ends once       effects
decide    strategies.py enough? who? or let an aggregator write?           pure
answer    here          the text, and report.py's account of where it comes from
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import msgspec
from prometheus_client import CollectorRegistry

from axion_llm.api.params import Origin, chat_generates, chat_tools
from axion_llm.consensus import deadlines, extract, strategies, vote
from axion_llm.consensus.arrangement import Arrangement
from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.crew import Crew
from axion_llm.consensus.embed import Embedder, HashingEmbedder, medoid
from axion_llm.consensus.experts import Roster
from axion_llm.consensus.facts import facts_of
from axion_llm.consensus.happenings import Decided, Done, Ended, Happening, Planned, Started, Text, Wrote
from axion_llm.consensus.meter import Meter
from axion_llm.consensus.options import ConsensusRequest, Options, check, strategy_of
from axion_llm.consensus.plan import Plan
from axion_llm.consensus.pool_embedder import PoolEmbedder
from axion_llm.consensus.prompt import continued
from axion_llm.consensus.report import Outcome, consensus_object, usage_object
from axion_llm.consensus.route import Ask, make_plan
from axion_llm.consensus.synthesis import Synthesis
from axion_llm.errors import AxionError, DeadlineExceeded, NoQuorum, RequestError
from axion_llm.pool.interface import ModelPool
from axion_llm.worker.messages import Generate, Loaded

MAX_EXPERT_TOKENS = 2048  # where the request names no limit: an endless expert ends, others are hardly ever cut
EMBED_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One request."""

    id: str
    request: ConsensusRequest
    is_interactive: bool = False
    is_large: bool = False  # so that work on it belongs into a thread
    tenant: str = ""  # of the caller, for all that its experts are asked

    @property
    def options(self) -> Options:
        return self.request.consensus or Options()


class Orchestrator:
    """For one pool. Holds what outlives a request: the roster of experts, and which arrangement has proved fast."""

    def __init__(
        self, pool: ModelPool, roster: Roster, embedder: Embedder | None = None, meter: Meter | None = None
    ) -> None:
        self.pool = pool
        self.roster = roster
        self.embedder = embedder or PoolEmbedder(pool)
        self.arrangement = Arrangement()
        self.meter = meter or Meter(CollectorRegistry())

    def plan(self, task: Task) -> Plan:
        """Raises BadRequest, ModelNotFound or NoQuorum when there is nothing to plan with."""
        request = task.request
        check(request)
        strategy = strategy_of(request.model, task.options)
        statuses = self.pool.models()
        free = self.roster.num_free_places(statuses)
        ask = Ask(facts_of(request), task.options, strategy, request.temperature, free)
        return make_plan(ask, self.roster.experts(statuses), self.roster.weights())

    def run(self, task: Task, plan: Plan) -> AsyncGenerator[Happening, None]:
        """What happens, up to one Done; raises an AxionError instead when there is no answer.

        Closing it early cancels everything that runs for it.
        """
        return _Run(self, task, plan).happenings()


class _Run:
    """One request on its way through plan, run, decide, answer."""

    def __init__(self, orchestrator: Orchestrator, task: Task, plan: Plan) -> None:
        self._own, self._task, self._plan = orchestrator, task, plan
        self._attempts = plan.attempts()
        wanted = task.options.concurrency
        self._concurrency = wanted or orchestrator.arrangement.choose(plan.experts_at_once)
        self._outcome = Outcome(concurrency=self._concurrency)
        self._relayed = ""  # of the answer, already shown
        self._has_own_limit = task.request.max_new_tokens is None and not plan.is_relayed
        self._specs = {status.spec.name: status.spec for status in orchestrator.pool.models()}
        self._crew = Crew(
            orchestrator.pool,
            self._attempts,
            self._prepare,
            lambda text: extract.ballot(plan.question, text),
            concurrency=self._concurrency,
            limit_is_ours=self._has_own_limit,
            is_large=task.is_large,
            began=time.monotonic(),
        )
        self._synthesis = Synthesis(orchestrator.pool, self._specs, task, plan, self._crew.now)
        self._decision: strategies.Decision = strategies.Wait()

    async def happenings(self) -> AsyncGenerator[Happening, None]:
        yield Planned(self._plan)
        try:
            async for happening in self._until_decided():
                yield happening
            async for happening in self._answer(self._decision):
                yield happening
        except AxionError as exc:
            self._outcome.decided_by = f"error:{exc.code}"
            raise
        finally:
            try:
                await self._synthesis.close()
                await self._crew.close()
            finally:  # also when whoever listened has gone: then the closing is cancelled
                self._account()

    def _account(self) -> None:
        plan, outcome = self._plan, self._outcome
        outcome.decided_by = outcome.decided_by or "left"  # the client, or the service that stops
        seconds = self._crew.now()
        self._own.meter.count(plan.method, outcome.decided_by, seconds, outcome.agreement, outcome.is_early)
        self._own.meter.count_calls(self._attempts)
        experts = ", ".join(f"{a.expert}/{a.sample} {a.status}" for a in self._attempts)
        form = "id=%s consensus strategy=%s decided_by=%s agreement=%s ms=%.0f reason=%r experts=[%s]"
        values = (plan.method, outcome.decided_by, outcome.agreement, seconds * 1e3, plan.reason, experts)
        _log.info(form, self._task.id, *values)

    # ---- run and decide

    async def _until_decided(self) -> AsyncGenerator[Happening, None]:
        crew, plan, attempts = self._crew, self._plan, self._attempts
        while True:
            for attempt in deadlines.overdue(plan, attempts, crew.now()):
                crew.end_late(attempt)
            if not crew.has_news:  # first all that is known is told, so that what is relayed is complete
                self._decision = strategies.decide(plan, attempts)
                if not isinstance(self._decision, strategies.Wait):
                    break
                crew.start(self._decision.stage)
            happening = await crew.next(deadlines.next_check(plan, attempts) - crew.now())
            if happening is not None:
                for told in self._tell(happening):
                    yield told
        self._note_arrangement()
        await crew.close()
        while (happening := await crew.next(0)) is not None:  # how the losers ended
            for told in self._tell(happening):
                yield told

    def _tell(self, happening: Started | Wrote | Ended) -> list[Happening]:
        self._synthesis.note(happening.attempt, self._attempts)
        if isinstance(happening, Ended):
            return [Ended(happening.attempt, self._shares())]
        if isinstance(happening, Wrote) and self._plan.is_relayed:
            return [happening, *self._relay(happening.text)]
        return [happening]

    def _relay(self, text: str) -> list[Happening]:
        if not self._relayed:
            text = text.lstrip()
        self._relayed += text
        return [Text(text)] if text else []

    def _shares(self) -> dict[str, float]:
        found = strategies.votes(self._attempts)
        shown = {a.ballot.key: a.ballot.shown for a in self._attempts if a.ballot}
        return {shown[key]: vote.agreement(found, key) for key in found}

    def _prepare(self, expert: str, attempts: Sequence[Attempt], info: Loaded) -> list[Generate]:
        """What a plain request to the expert would become, with what the plan changes."""
        changes: dict[str, object] = {"model": expert, "n": len(attempts)}
        if self._task.request.seed is not None:
            changes["seed"] = self._task.request.seed + attempts[0].index
        if self._plan.temperature is not None:
            changes["temperature"] = self._plan.temperature
        if self._has_own_limit:
            changes["max_tokens"] = MAX_EXPERT_TOKENS
        task, spec = self._task, self._specs[expert]
        origin = Origin(f"{task.id}-{attempts[0].index}", spec, task.is_interactive, task.tenant)
        tools = chat_tools(self._task.request, origin, info)
        for attempt in attempts:
            attempt.tools = tools
        found = chat_generates(self._task.request.model_copy(update=changes), origin, info)
        found = [_fitted(request, info) for request in found] if self._has_own_limit else found
        # Where the expert before died in the middle of a sentence, this one goes on from there.
        return [continued(request, self._relayed, info) for request in found]

    def _note_arrangement(self) -> None:
        """Only of a run that was not cut short: how long all took for how many tokens."""
        ended = [a for a in self._attempts if a.status in ("ok", "cut")]
        if len(ended) == len(self._attempts) and not self._plan.is_relayed:
            began = min(a.started or 0.0 for a in ended)
            seconds = max(a.ended or 0.0 for a in ended) - began
            tokens = sum(a.completion_tokens for a in ended)
            self._own.arrangement.observe(self._plan.experts_at_once, self._concurrency, tokens, seconds)

    # ---- answer

    async def _answer(self, decision: strategies.Decision) -> AsyncGenerator[Happening, None]:
        match decision:
            case strategies.Combine(indices):
                async for happening in self._combine(indices):
                    yield happening
            case strategies.Compare(indices):
                for happening in self._choose(await self._middle(indices)):
                    yield happening
            case strategies.Choose():
                for happening in self._choose(decision):
                    yield happening
            case _:
                if not self._relayed:
                    raise self._no_answer()
                self._outcome.decided_by, self._outcome.finish_reason = "deadline", "length"
        yield self._done()

    def _choose(self, decision: strategies.Choose) -> list[Happening]:
        outcome, attempt = self._outcome, self._attempts[decision.index]
        outcome.decided_by, outcome.agreement = decision.by, decision.agreement
        outcome.chosen, outcome.is_early = decision.index, decision.is_early
        outcome.finish_reason = attempt.finish_reason or "length"
        told: list[Happening] = [Decided(decision.by, decision.agreement, attempt)]
        return told if self._relayed else [*told, Text(attempt.text)]

    async def _middle(self, indices: Sequence[int]) -> strategies.Choose:
        """Of answers in prose the one that is nearest to all others, each counted by its weight."""
        attempts = [self._attempts[i] for i in indices]
        texts = [a.text for a in attempts]
        embedder = self._own.embedder
        try:
            seconds = min(EMBED_SECONDS, max(0.0, self._plan.limits.deadline - self._crew.now()))
            vectors = await asyncio.wait_for(embedder.embed(texts), seconds)
        except (AxionError, asyncio.TimeoutError) as exc:
            _log.info("id=%s: %s instead of %s: %s", self._task.id, HashingEmbedder.name, embedder.name, exc)
            embedder = HashingEmbedder()
            vectors = await embedder.embed(texts)
        self._outcome.embedder = embedder.name
        # No agreement is told: likeness of vectors means something else with every embedder.
        return strategies.Choose(attempts[medoid(vectors, [a.weight for a in attempts])].index, "middle of the answers")

    async def _combine(self, indices: Sequence[int]) -> AsyncGenerator[Happening, None]:
        """The aggregators in turn; when none can, the best of the answers."""
        attempts = [self._attempts[i] for i in indices]
        yield Decided("synthesis", None, None)
        async for happening in self._synthesis.write(attempts):
            yield happening
        outcome, synthesis = self._outcome, self._synthesis
        outcome.judge, outcome.judge_failures, outcome.judge_usage = (
            synthesis.judge,
            synthesis.failures,
            synthesis.usage,
        )
        if synthesis.is_written:
            outcome.decided_by, outcome.finish_reason = "synthesis", synthesis.finish_reason
            return
        for told in self._choose(await self._middle(indices)):
            yield told
        outcome.decided_by = "fallback"

    def _no_answer(self) -> AxionError:
        errors = [a.error for a in self._attempts if a.error is not None]
        if errors and all(isinstance(e, RequestError) for e in errors):
            return errors[0]  # no expert can do anything with this request, and says why
        said = "; ".join(dict.fromkeys(e.public_message for e in errors)) or "none was asked"
        num_ok = sum(a.is_ok for a in self._attempts)
        message = f"{num_ok} of {len(self._attempts)} answers, {self._plan.min_successful} are needed: {said[:1000]}"
        if errors and not num_ok and all(isinstance(e, DeadlineExceeded) for e in errors):
            return DeadlineExceeded(message)
        return NoQuorum(message)

    def _done(self) -> Done:
        plan, outcome = self._plan, self._outcome
        with_texts = self._task.options.include_experts
        consensus = consensus_object(plan, self._attempts, outcome, with_texts=with_texts)
        return Done(outcome.finish_reason, consensus, usage_object(self._attempts, outcome.judge_usage))


def _fitted(request: Generate, info: Loaded) -> Generate:
    """Our own limit must not make a long prompt one that does not fit: then the context is the limit."""
    chars = len(request.prompt)  # at least one character a token in what models are asked, and most have four
    fits = request.max_tokens is None or chars + request.max_tokens <= info.n_ctx
    return request if fits else msgspec.structs.replace(request, max_tokens=None)
