"""The weights on disk: written by a calibration, read by the service, looked at again when the file changes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from axion_llm import files
from axion_llm.consensus.weights import Score, Weights
from axion_llm.errors import ConfigError

VERSION = 1

_log = logging.getLogger(__name__)


class WeightsFile:
    """Call it for the weights as they are now; one `stat` per call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: float | None = None
        self._weights = Weights()

    def __call__(self) -> Weights:
        try:
            changed = self._path.stat().st_mtime
        except OSError:
            changed = None
        if changed != self._seen:
            self._seen, self._weights = changed, self._read() if changed is not None else Weights()
        return self._weights

    def _read(self) -> Weights:
        try:
            found = read_weights(self._path)
        except ConfigError as exc:
            _log.warning("%s; no calibration is used", exc.message)
            return Weights()
        _log.info("consensus: calibration of %s from %s", ", ".join(found.experts) or "nobody", self._path)
        return found


def read_weights(path: Path) -> Weights:
    """Raises ConfigError when it is no weights file of this version."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["version"] != VERSION:
            raise ConfigError(f"{path}: version {raw['version']}, this program reads {VERSION}; calibrate anew")
        return Weights(_scores(raw["experts"]), _scores(raw["strategies"]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{path}: no weights file: {exc!r}") from None


def write_weights(path: Path, weights: Weights, about: dict[str, Any]) -> None:
    """Whole or not at all. `about`: when, on what, how many items."""
    found = {
        "version": VERSION,
        "about": about,
        "experts": _raw(weights.experts),
        "strategies": _raw(weights.strategies),
    }
    files.replace(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _scores(raw: Any) -> dict[str, dict[str, Score]]:
    return {
        str(name): {
            str(domain): Score(float(s["correct"]), int(s["items"]), float(s["low"]), float(s["high"]))
            for domain, s in by_domain.items()
        }
        for name, by_domain in raw.items()
    }


def _raw(scores: Any) -> dict[str, Any]:
    return {
        name: {
            domain: {"correct": s.num_correct, "items": s.num_items, "low": round(s.low, 4), "high": round(s.high, 4)}
            for domain, s in by_domain.items()
        }
        for name, by_domain in scores.items()
    }
