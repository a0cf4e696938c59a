"""The pool's models as experts: who can be asked, with which weight, and how long they may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from axion_llm.consensus.options import MAX_EXPERTS
from axion_llm.consensus.plan import Expert
from axion_llm.consensus.weights import Weights
from axion_llm.pool.interface import ModelStatus

LOAD_BYTES_PER_SECOND = 400e6  # a guess for a file that is not in memory yet; a loaded model has told better
LOAD_START_SECONDS = 2.0
UNMEASURED_STRENGTH_BYTES = 40e9  # makes a guess from the size stay below every measured accuracy


class Roster:
    """Built anew for each request from the pool's states; costs microseconds."""

    def __init__(self, weights: Callable[[], Weights] = Weights, max_loaded: int = MAX_EXPERTS) -> None:
        self._weights = weights
        self._max_loaded = max_loaded
        self._load_seconds: dict[str, float] = {}

    def weights(self) -> Weights:
        return self._weights()

    def num_free_places(self, statuses: Sequence[ModelStatus]) -> int:
        """How many models can be loaded without another one having to go."""
        return max(0, self._max_loaded - sum(s.state in ("ready", "loading") for s in statuses))

    def experts(self, statuses: Sequence[ModelStatus]) -> list[Expert]:
        """Those whose files are here, whether loaded or not."""
        return [self._expert(s) for s in statuses if s.state != "missing"]

    def _expert(self, status: ModelStatus) -> Expert:
        spec, info = status.spec, status.info
        if info is not None:
            self._load_seconds[spec.name] = info.load_seconds
        size = spec.size_bytes or (info.size_bytes if info else 0)
        guess = LOAD_START_SECONDS + size / LOAD_BYTES_PER_SECOND
        measured = self._weights().accuracy(spec.name)
        return Expert(
            name=spec.name,
            weight=spec.expert_weight,
            roles=spec.roles,
            languages=spec.languages,
            size_bytes=size,
            is_loaded=status.state == "ready",
            has_failed=status.state == "failed",
            is_reserve=spec.expert_weight == 0,
            load_seconds=self._load_seconds.get(spec.name, guess),
            first_token_seconds=spec.expert_first_token_seconds,
            total_seconds=spec.expert_deadline_seconds,
            strength=measured if measured is not None else min(0.0, size / UNMEASURED_STRENGTH_BYTES - 1),
            sampling_temperature=spec.sampling.temperature,
        )
