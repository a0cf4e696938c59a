"""What the pool should do next, from a snapshot: pure functions, the effects are in pool.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from axion_llm.models.spec import ModelSpec

MIN_TURN_SECONDS = 1.0
LOADS_PER_TURN = 8
MAX_REST_SECONDS = 2.0


@dataclass(frozen=True)
class Resident:
    """A model that has a place in the pool: admitted to load, loaded, or on its way out."""

    name: str
    state: Literal["loading", "busy", "closing", "idle", "leaving"]  # closing: busy, and takes no new request
    last_used: float  # seconds on the pool's clock, as all times here
    held_bytes: int  # what its end gives back
    unseen_bytes: int  # of them, what the machine still counts as available: mapped weights, a load to come
    is_pinned: bool = False  # nothing but an order unloads it
    ready_at: float = 0.0
    load_seconds: float = 0.0  # what it costs to have it back
    closing_since: float = 0.0


@dataclass(frozen=True)
class Demand:
    """A model that wants a place."""

    need_bytes: int
    is_first: bool = True  # of all that want one; the others wait for their turn
    is_wanted: bool = True  # a request waits for it; a load ahead of any request takes nothing from others
    since: float = 0.0


@dataclass(frozen=True)
class Limits:
    max_loaded: int
    available_bytes: int  # as the machine counts
    memory_limit_bytes: int = 0  # of all models together, as the user says; 0: none
    now: float = 0.0
    turn_seconds: float = 20.0  # the longest turn of a model for whose place another one waits


@dataclass(frozen=True)
class Admit:
    pass


@dataclass(frozen=True)
class Evict:
    name: str


@dataclass(frozen=True)
class Close:
    """Its turn is over: it ends what it has begun, and new requests for it wait until it is loaded again."""

    name: str


@dataclass(frozen=True)
class Wait:
    """Until something changes: others come first, or models in use hold the places or the memory."""

    lacks: Literal["turn", "place", "memory"]
    until: float | None = None  # when it is worth another look although nothing has changed


@dataclass(frozen=True)
class Refuse:
    """It does not fit, whatever may be unloaded."""

    free_bytes: int  # with everything unloaded that is not pinned
    lacks: Literal["memory", "place"] = "memory"


@dataclass(frozen=True)
class Forgo:
    """There is no room and no request needs it now."""


Decision = Admit | Evict | Close | Wait | Refuse | Forgo


def plan_load(residents: Sequence[Resident], demand: Demand, limits: Limits) -> Decision:
    """The least recently used idle model makes room, one at a time. One that is in use has its turn, and then ends."""
    free_bytes = _free_bytes(residents, limits)
    has_place = len(residents) < limits.max_loaded
    if has_place and demand.need_bytes <= free_bytes:
        return Admit() if demand.is_first else Wait("turn")
    movable = [r for r in residents if not r.is_pinned]
    most_bytes = free_bytes + sum(r.held_bytes for r in movable)
    if demand.need_bytes > most_bytes:
        return Refuse(most_bytes)
    if not has_place and not movable:
        return Refuse(most_bytes, "place")
    if not demand.is_wanted:
        return Forgo()
    if not demand.is_first:
        return Wait("turn")
    lacks: Literal["place", "memory"] = "memory" if has_place else "place"
    if any(r.state == "leaving" for r in movable):  # nothing is unloaded in vain
        return Wait(lacks)
    idle = [r for r in movable if r.state == "idle"]
    if idle and sum(r.held_bytes for r in idle) >= demand.need_bytes - free_bytes:
        return _evict(min(idle, key=lambda r: r.last_used), demand, limits, lacks)
    return _end_a_turn(movable, demand, limits, lacks)


def _free_bytes(residents: Sequence[Resident], limits: Limits) -> int:
    free = limits.available_bytes - sum(r.unseen_bytes for r in residents)
    if not limits.memory_limit_bytes:
        return free
    return min(free, limits.memory_limit_bytes - sum(r.held_bytes for r in residents))


def _evict(victim: Resident, demand: Demand, limits: Limits, lacks: Literal["place", "memory"]) -> Evict | Wait:
    """Not at once: its next request may be on the way, and would wait for two loads.

    To keep it as long as its load takes costs at most twice what the best guess would (the ski-rental rule).
    """
    rested = victim.last_used + min(victim.load_seconds, MAX_REST_SECONDS)
    rested = min(rested, turn_end(victim, demand, limits))
    return Evict(victim.name) if limits.now >= rested else Wait(lacks, rested)


def _end_a_turn(
    movable: Sequence[Resident], demand: Demand, limits: Limits, lacks: Literal["place", "memory"]
) -> Close | Evict | Wait:
    """Models in use for whose places others wait take turns, so that nobody waits for ever.

    A turn ends softly: the model takes no new request. After as long again what it still has is suspended: unloaded
    under it, to go on in the model's next turn.
    """
    if closing := [r for r in movable if r.state == "closing"]:
        first = min(closing, key=lambda r: r.closing_since)
        end = first.closing_since + turn_seconds(first, limits)
        return Evict(first.name) if limits.now >= end else Wait(lacks, end)
    busy = [r for r in movable if r.state == "busy"]
    if not busy:
        return Wait(lacks)
    first = min(busy, key=lambda r: turn_end(r, demand, limits))
    end = turn_end(first, demand, limits)
    return Close(first.name) if limits.now >= end else Wait(lacks, end)


def turn_seconds(resident: Resident, limits: Limits) -> float:
    """Long enough to be worth the loads around it."""
    return min(limits.turn_seconds, max(MIN_TURN_SECONDS, LOADS_PER_TURN * resident.load_seconds))


def turn_end(resident: Resident, demand: Demand, limits: Limits) -> float:
    """A turn begins when the model is ready and another one waits."""
    return max(resident.ready_at, demand.since) + turn_seconds(resident, limits)


def choose_warm(on_machine: Sequence[ModelSpec], count: int) -> list[ModelSpec]:
    """To load at start: pinned ones, then in the registry's order, the default that comes as a package last."""
    order = sorted(on_machine, key=lambda spec: (not spec.pin, spec.source.package is not None))
    return order[:count]


def expired(residents: Sequence[Resident], now: float, idle_seconds: float) -> list[str]:
    """Models to unload because no request has come for so long; an `idle_seconds` of 0 means never."""
    if idle_seconds <= 0:
        return []
    idle = [r for r in residents if r.state == "idle" and not r.is_pinned]
    return [r.name for r in idle if now - r.last_used >= idle_seconds]
