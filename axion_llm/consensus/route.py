"""Which experts a request goes to and in which way: pure, from facts about it and the experts that are there.

    hard needs      images -> role vision; tools -> one expert, for calls are no matter for a vote
    language        not the others' -> an expert that names it, or has the role multilingual
    code            -> role code
    domain          nearest centroid, or unknown -> the fast one and the strongest
    room            an expert that is not loaded joins only if the deadline allows for its load, and only the most
                    suitable one may cost another model its place in the pool

No model is asked who should be asked: a router must cost less than what it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from axion_llm.consensus import vote
from axion_llm.consensus.facts import Facts
from axion_llm.consensus.options import MAX_EXPERTS, Options, Strategy
from axion_llm.consensus.plan import Expert, Limits, Method, Plan, Slot
from axion_llm.consensus.weights import OPEN_CHOICES, Weights
from axion_llm.errors import BadRequest, NoQuorum

DEADLINE_SECONDS = 120.0
SYNTHESIS_PART = 0.4  # of the deadline is kept for it
LOAD_PART = 0.3  # of the deadline that a load may take, for an expert to join
SAMPLES = {"self": 5, "vote": 5, "best_of": 4, "synthesize": 3, "cascade": 3}  # of an expert that is alone
CASCADE_SAMPLES = 2  # of the first expert: one that agrees with itself may be believed
SAMPLING_TEMPERATURE = 0.7  # where several samples of a greedy expert would be the same
GREEDY_BELOW = 0.3
TYPED = ("number", "choice", "yes_no", "date", "label", "json")


@dataclass(frozen=True)
class Ask:
    """A request as far as routing goes."""

    facts: Facts
    options: Options
    strategy: Strategy
    temperature: float | None = None  # the request's own
    num_free_places: int = MAX_EXPERTS  # in the pool, for models that are not loaded


def make_plan(ask: Ask, experts: Sequence[Expert], weights: Weights) -> Plan:
    """Raises BadRequest for experts that cannot be asked, NoQuorum when there is none at all."""
    candidates = _candidates(ask, experts)
    ranked, why = _ranked(ask.facts, candidates)
    ranked = _with_room(ranked, ask.num_free_places) if ask.options.experts is None else ranked
    team = ranked[:MAX_EXPERTS] if ask.options.experts is None else candidates
    method, because = _method(ask, team, weights)
    if ask.facts.has_images or ask.facts.has_tools:
        team = ranked
    slots, temperature = _slots(ask, method, team, weights)
    num_needed, falls_back = _quorum(ask.options, method, len(slots))
    return Plan(
        method=method,
        slots=slots,
        limits=_limits(ask.options, method, team),
        min_successful=num_needed,
        falls_back=falls_back,
        early_stop=ask.options.early_stop,
        question=ask.facts.question,
        aggregators=_aggregators(ask.options, team, experts),
        temperature=temperature,
        is_single_handed=ask.facts.has_images or ask.facts.has_tools,
        reason=f"{because}; {why}",
        signals=ask.facts.signals(),
    )


# ---- who


def _candidates(ask: Ask, experts: Sequence[Expert]) -> list[Expert]:
    if ask.options.experts is not None:
        return _named(ask, experts)
    healthy = [e for e in experts if not e.has_failed] or list(experts)
    found = [e for e in healthy if not e.is_reserve] or healthy
    if not found:
        raise NoQuorum("no model is on this machine that could be asked; see axion-llm models")
    if ask.facts.has_images:
        found = [e for e in found if "vision" in e.roles]
        if not found:
            raise BadRequest("messages: no expert here takes images; pull one, as gemma3_multimodal", param="messages")
    deadline = _deadline(ask.options)
    in_time = [e for e in found if e.is_loaded or e.load_seconds <= LOAD_PART * deadline]
    return in_time or [min(found, key=lambda e: e.load_seconds)]


def _named(ask: Ask, experts: Sequence[Expert]) -> list[Expert]:
    by_name = {e.name: e for e in experts}
    names = ask.options.experts or []
    if missing := [name for name in names if name not in by_name]:
        known = ", ".join(by_name) or "none"
        message = f'consensus.experts: "{missing[0][:200]}" is not on this machine. Here: {known}.'
        raise BadRequest(message, param="consensus.experts")
    if ask.facts.has_images and not any("vision" in by_name[name].roles for name in names):
        raise BadRequest("consensus.experts: none of these takes images", param="consensus.experts")
    return [replace(by_name[name], is_reserve=False) for name in names]


def _ranked(facts: Facts, experts: Sequence[Expert]) -> tuple[list[Expert], str]:
    """The most suitable first, and what made the difference."""
    if facts.has_images:
        return _first([e for e in experts if "vision" in e.roles], experts, "images need a model that sees")
    if facts.language not in ("en", "unknown"):
        able = [e for e in experts if facts.language in e.languages] or _with_role(experts, "multilingual")
        if able and facts.code is None:
            return _first(able, experts, f"the language is {facts.language}")
    if facts.code is not None and (coders := _with_role(experts, "code")):
        return _first(coders, experts, f"it is about {facts.code}")
    if facts.domain == "unknown":
        return _first([], experts, "no domain stands out")
    return _first(_with_role(experts, facts.domain), experts, f"the domain is {facts.domain}")


def _with_role(experts: Sequence[Expert], role: str) -> list[Expert]:
    return [e for e in experts if role in e.roles]


def _first(able: Sequence[Expert], experts: Sequence[Expert], why: str) -> tuple[list[Expert], str]:
    """These before the others; specialists for something else come last among the others."""
    rest = sorted((e for e in experts if e not in able), key=lambda e: ("chat" not in e.roles, not e.is_loaded))
    return [*sorted(able, key=lambda e: not e.is_loaded), *rest], why


def _with_room(ranked: Sequence[Expert], num_free_places: int) -> list[Expert]:
    """The most suitable one may cost another model its place; the others join only where they unload nobody."""
    found: list[Expert] = []
    for expert in ranked:
        if expert.is_loaded or not found or num_free_places > 0:
            num_free_places -= not expert.is_loaded
            found.append(expert)
    return found


def _aggregators(options: Options, team: Sequence[Expert], experts: Sequence[Expert]) -> tuple[str, ...]:
    """The strongest first. Strength is measured accuracy, or a guess from the size that stays below any of it."""
    by_strength = sorted(team, key=lambda e: (e.strength, e.size_bytes), reverse=True)
    names = [e.name for e in by_strength]
    if options.aggregator is None:
        return tuple(names)
    if options.aggregator not in {e.name for e in experts}:
        message = f'consensus.aggregator: "{options.aggregator[:200]}" is not on this machine'
        raise BadRequest(message, param="consensus.aggregator")
    return (options.aggregator, *(name for name in names if name != options.aggregator))


# ---- how


def _method(ask: Ask, team: Sequence[Expert], weights: Weights) -> tuple[Method, str]:
    facts = ask.facts
    if facts.has_images or facts.has_tools:
        return "route", "tool calls and images are one expert's work"
    if ask.strategy != "auto":
        return ask.strategy, f"{ask.strategy} was asked for"
    if len(team) == 1:
        return "self", f"{team[0].name} is the only expert: samples of it are compared"
    if best := _measured_best(facts, weights):
        return best
    if facts.question.kind in TYPED:
        return "cascade", f"the answer is a {facts.question.kind}: it can be compared, further experts only on dissent"
    return "route", "prose goes to one expert while no calibration says that combining is better"


def _measured_best(facts: Facts, weights: Weights) -> tuple[Method, str] | None:
    """A strategy whose interval lies above what routing to one expert reaches, by the user's own calibration."""
    domain = facts.domain if weights.score("route", facts.domain) else "all"
    base = weights.score("route", domain)
    methods: tuple[Method, ...] = ("cascade", "vote", "best_of", "synthesize", "self")
    scored = [(score, m) for m in methods if (score := weights.score(m, domain))]
    if base is None or not scored:
        return None
    score, method = max(scored, key=lambda pair: pair[0].low)
    if score.low <= base.accuracy:
        return None
    return method, f"calibrated on {domain}: {method} {score.accuracy:.2f}, route {base.accuracy:.2f}"


def _slots(ask: Ask, method: Method, team: Sequence[Expert], weights: Weights) -> tuple[tuple[Slot, ...], float | None]:
    if method == "route":
        return tuple(Slot(e.name, 0, vote.UNIT, stage) for stage, e in enumerate(team)), None
    if method == "self":
        team = team[:1]
    if method == "cascade":
        team = sorted(team, key=lambda e: (not e.is_loaded, e.size_bytes))
    slots: list[Slot] = []
    is_greedy = ask.temperature == 0
    num_most = 1
    for stage, expert in enumerate(team):
        n = 1 if is_greedy else _num_samples(ask, method, len(team), is_first=stage == 0)
        num_most = max(n, num_most)
        share = vote.share(_weight(ask.facts, expert, weights), n)
        is_windowed = method in ("self", "vote") and len(team) == 1 and ask.options.early_stop
        for i in range(n):
            slots.append(Slot(expert.name, i, share, stage if method == "cascade" else is_windowed * _window(i, n)))
    is_flat = any(e.sampling_temperature < GREEDY_BELOW for e in team)
    temperature = SAMPLING_TEMPERATURE if num_most > 1 and ask.temperature is None and is_flat else None
    return tuple(slots), temperature


def _window(sample: int, num_samples: int) -> int:
    """First as many samples of one expert as could decide the vote, then two at a time: a lead grows by two at most."""
    first = num_samples // 2 + 1
    return 0 if sample < first else 1 + (sample - first) // 2


def _num_samples(ask: Ask, method: Method, num_experts: int, *, is_first: bool) -> int:
    if ask.options.n is not None:
        return ask.options.n
    if num_experts == 1:
        return SAMPLES[method]
    return CASCADE_SAMPLES if method == "cascade" and is_first else 1


def _weight(facts: Facts, expert: Expert, weights: Weights) -> float:
    num_choices = len(facts.question.labels or facts.question.choices) or (
        2.0 if facts.question.kind == "yes_no" else OPEN_CHOICES
    )
    return weights.weight(expert.name, facts.domain, num_choices, expert.weight or 1.0)


# ---- how long, how many


def _deadline(options: Options) -> float:
    return options.deadline_ms / 1e3 if options.deadline_ms else DEADLINE_SECONDS


def _limits(options: Options, method: Method, team: Sequence[Expert]) -> Limits:
    deadline = _deadline(options)
    return Limits(
        deadline=deadline,
        experts_deadline=deadline * (1 - SYNTHESIS_PART) if method == "synthesize" else deadline,
        patience=None if options.patience_ms is None else options.patience_ms / 1e3,
        first_token={e.name: e.first_token_seconds for e in team},
        total={e.name: e.total_seconds for e in team},
    )


def _quorum(options: Options, method: Method, num_calls: int) -> tuple[int, bool]:
    """How many answers are needed, and whether the best one will do when there are fewer."""
    if method == "route":
        return 1, False
    wanted = options.min_successful
    if wanted is not None and wanted > num_calls:
        message = f"consensus.min_successful: {wanted} of {num_calls} calls cannot succeed"
        raise BadRequest(message, param="consensus.min_successful")
    falls_back = wanted is None if options.fallback is None else options.fallback == "best"
    return wanted or min(2, num_calls), falls_back
