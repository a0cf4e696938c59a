"""What the pool should do next, from a snapshot: pure functions, the effects are in pool.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from axion_llm.models.spec import ModelSpec


@dataclass(frozen=True)
class Resident:
    """A model that has a place in the pool: admitted to load, loaded, or on its way out."""

    name: str
    state: Literal["loading", "busy", "idle", "leaving"]
    last_used: float  # seconds on the pool's clock
    held_bytes: int  # what its end gives back
    unseen_bytes: int  # of them, what the machine still counts as available: mapped weights, a load to come
    is_pinned: bool = False  # nothing but an order unloads it


@dataclass(frozen=True)
class Demand:
    """A model that wants a place."""

    need_bytes: int
    is_first: bool = True  # of all that want one; the others wait for their turn
    is_wanted: bool = True  # a request waits for it; a load ahead of any request takes nothing from others


@dataclass(frozen=True)
class Limits:
    max_loaded: int
    available_bytes: int  # as the machine counts


@dataclass(frozen=True)
class Admit:
    pass


@dataclass(frozen=True)
class Evict:
    name: str


@dataclass(frozen=True)
class Wait:
    """Until something changes: others come first, or models in use hold the places or the memory."""

    lacks: Literal["turn", "place", "memory"]


@dataclass(frozen=True)
class Refuse:
    """It does not fit, whatever may be unloaded."""

    free_bytes: int  # with everything unloaded that is not pinned
    lacks: Literal["memory", "place"] = "memory"


@dataclass(frozen=True)
class Forgo:
    """There is no room and no request needs it now."""


Decision = Admit | Evict | Wait | Refuse | Forgo


def plan_load(residents: Sequence[Resident], demand: Demand, limits: Limits) -> Decision:
    """The least recently used idle model makes room, one at a time; a model in use never does."""
    free_bytes = limits.available_bytes - sum(r.unseen_bytes for r in residents)
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
    return _make_room(movable, demand.need_bytes - free_bytes) or Wait("memory" if has_place else "place")


def _make_room(residents: Sequence[Resident], lacking_bytes: int) -> Evict | None:
    """Nothing is unloaded in vain: not while another model leaves anyway, nor when it would not be enough."""
    idle = [r for r in residents if r.state == "idle"]
    is_leaving = any(r.state == "leaving" for r in residents)
    if not idle or is_leaving or sum(r.held_bytes for r in idle) < lacking_bytes:
        return None
    return Evict(min(idle, key=lambda r: r.last_used).name)


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
