"""What a machine computes with, once something was found that it cannot: kept by build and CPU, in one file.

    rung        what a worker still uses                             left when the probe ends by a signal, or
    all         our kernels, but for those in `without`              a kernel of ours cannot be blamed alone
    upstream    none of ours                                         this one too
    no_repack   none of upstream's own layouts either (AMX, repack)  this one too
    baseline    the backend in plain code

A probe (worker/probe.py) loads the embedded model and computes with it, so a model that is itself broken costs nobody
a rung. Pure but for `read` and `write`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from axion_llm.config import RUNGS, Rung

MOST_TAKEN_OUT = 3  # kernels that end the process one after the other: it is not they

_WHAT = {
    "all": "our kernels",
    "upstream": "upstream's code alone",
    "no_repack": "upstream's code without its own weight layouts",
    "baseline": "plain code for any CPU",
}


@dataclass(frozen=True)
class Footing:
    """`why`: a sentence for people, empty where nothing was found."""

    rung: Rung = "all"
    without: tuple[str, ...] = ()
    why: str = ""
    since: float = 0.0  # seconds since the epoch
    is_tested: bool = False  # the kernels that are on passed the short self-test

    @property
    def is_full(self) -> bool:
        return self.rung == "all" and not self.without

    def __str__(self) -> str:
        """As the log, /health, ps and doctor say it."""
        off = f" without {', '.join(self.without)}" if self.rung == "all" and self.without else ""
        return f"{_WHAT[self.rung]}{off}"


@dataclass(frozen=True)
class Probe:
    """How a probe went. `at`: the last that it began, a kernel's name or "model"."""

    wrong: tuple[str, ...] = ()  # kernels that gave wrong numbers
    ended_by: str | None = None  # a signal's name, or how else it failed; None: it came through
    at: str = ""

    @property
    def is_well(self) -> bool:
        return self.ended_by is None and not self.wrong


def step_down(footing: Footing, probe: Probe, now: float) -> Footing | None:
    """Where to stand after a probe that was not well; None when there is nothing left to do without."""
    if footing.rung == "all" and (probe.wrong or len(footing.without) < MOST_TAKEN_OUT):
        bad = probe.wrong or ((probe.at,) if probe.at and probe.at != "model" else ())
        if new := tuple(name for name in bad if name not in footing.without):
            what = f"ended the process ({probe.ended_by})" if probe.ended_by else "gave wrong numbers"
            return replace(footing, without=footing.without + new, why=f"{', '.join(new)} {what}", since=now)
    below = RUNGS.index(footing.rung) + 1
    if below == len(RUNGS):
        return None
    why = f"with {footing} a process that computes with the embedded model ended ({probe.ended_by})"
    return Footing(RUNGS[below], why=why, since=now)


# ---- the file


def key_of(stamp: dict[str, str]) -> tuple[str, str]:
    """(build, CPU) that a footing holds for."""
    build = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:16]
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    facts = re.findall(r"^(?:model name|CPU implementer|CPU part|flags|Features)\s*:\s*(.*)$", text, re.M)
    return build, hashlib.sha256("\n".join(sorted(set(facts))).encode()).hexdigest()[:16]


def read(path: Path, key: tuple[str, str]) -> Footing:
    """What was found for this build and CPU; a file that cannot be read is as good as none."""
    build, cpu = key
    try:
        found = json.loads(path.read_text())
        if found["build"] != build or cpu not in found["cpus"]:
            return Footing()
        values = found["cpus"][cpu]
        return Footing(**{**values, "without": tuple(values["without"])}) if values["rung"] in RUNGS else Footing()
    except (OSError, ValueError, KeyError, TypeError):
        return Footing()


def write(path: Path, key: tuple[str, str], footing: Footing) -> None:
    """Keeps what other CPUs have with the same build (a home directory may be shared); what other builds had goes."""
    build, cpu = key
    cpus = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text())
        cpus = dict(found["cpus"]) if found["build"] == build else {}
    cpus[cpu] = asdict(footing)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    with os.fdopen(fd, "w") as out:
        json.dump({"build": build, "cpus": cpus}, out, indent=1)
    Path(name).replace(path)


def forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def now() -> float:
    return time.time()
