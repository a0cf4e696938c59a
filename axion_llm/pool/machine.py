"""What this process may really use of the machine: cores and memory, under affinity and cgroup limits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil  # type: ignore[import-untyped]

UNLIMITED_BYTES = 1 << 60  # cgroup v1 has no word for "no limit", only a number beyond all machines


@dataclass(frozen=True)
class Memory:
    """One reading. Page cache counts as available everywhere, for the kernel gives it up when asked."""

    machine_bytes: int  # available
    total_bytes: int
    cgroup_limit_bytes: int | None = None  # of the tightest level
    cgroup_used_bytes: int = 0

    @property
    def available_bytes(self) -> int:
        if self.cgroup_limit_bytes is None:
            return self.machine_bytes
        return max(0, min(self.machine_bytes, self.cgroup_limit_bytes - self.cgroup_used_bytes))


def available_cores() -> int:
    """Cores in our affinity mask, no more than the cgroup's quota pays for in full; at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for directory in _directories("cpu") if (quota := _cpu_quota(directory)) is not None]
    return max(1, int(min([float(allowed), *quotas])))


def available_cpus() -> tuple[int, ...]:
    """The numbers of the CPUs in our affinity mask."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def available_memory_bytes() -> int:
    return read_memory().available_bytes


def read_memory() -> Memory:
    machine = psutil.virtual_memory()
    levels = [level for directory in _directories("memory") if (level := _memory_level(directory))]
    limit, used = min(levels, key=lambda level: level[0] - level[1], default=(None, 0))
    return Memory(machine.available, machine.total, limit, used)


def mapped_bytes(pid: int | None) -> int:
    """Resident pages of files that process `pid` maps: in use, though the kernel counts them as available."""
    try:
        return int(psutil.Process(pid).memory_info().shared) if pid else 0
    except (psutil.Error, AttributeError):
        return 0


# ---- cgroup files


def _directories(controller: str) -> Iterator[Path]:
    """This process's cgroup and those above it, as far as they can be seen here."""
    cgroup, mounts = _read(Path("/proc/self/cgroup")), _read(Path("/proc/self/mountinfo"))
    return (path for path in cgroup_directories(controller, cgroup, mounts) if path.is_dir())


def _cpu_quota(directory: Path) -> float | None:
    v1 = f"{_read(directory / 'cpu.cfs_quota_us')} {_read(directory / 'cpu.cfs_period_us')}"
    return parse_cpu_quota(_read(directory / "cpu.max") or v1)


def _memory_level(directory: Path) -> tuple[int, int] | None:
    """Limit and use in bytes; None when nothing is limited here."""
    limits = (_read(directory / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes"))
    limit = parse_limit(limits)
    if limit is None:
        return None
    used = _read(directory / "memory.current") or _read(directory / "memory.usage_in_bytes")
    return limit, max(0, int(used or 0) - parse_page_cache(_read(directory / "memory.stat")))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# ---- pure parsing


def cgroup_directories(controller: str, cgroup: str, mountinfo: str) -> list[Path]:
    """From /proc/self/cgroup and /proc/self/mountinfo: our directories of v1 and v2, innermost first."""
    return [
        directory
        for name, path in _memberships(cgroup)
        for mount_name, root, mount_point in _mounts(mountinfo)
        if name == mount_name and name in ("", controller)
        for directory in _upwards(path, root, mount_point)
    ]


def _memberships(cgroup: str) -> list[tuple[str, str]]:
    """Pairs of controller ("" for the unified hierarchy of v2) and path."""
    lines = [line.split(":", 2) for line in cgroup.splitlines() if line.count(":") >= 2]
    return [(name, path) for _, names, path in lines for name in names.split(",")]


def _mounts(mountinfo: str) -> list[tuple[str, str, str]]:
    """Controller, root inside the hierarchy and mount point of every cgroup mount."""
    mounts = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *_, options) = before.split(), after.split() or ["", ""]
        if kind == "cgroup2":
            mounts.append(("", fields[3], fields[4]))
        elif kind == "cgroup":
            mounts += [(option, fields[3], fields[4]) for option in options.split(",")]
    return mounts


def _upwards(path: str, root: str, mount_point: str) -> list[Path]:
    """A path outside the mount's root (a container that sees the host's names) means the mount itself."""
    below = PurePosixPath(path)
    relative = below.relative_to(root) if below.is_relative_to(root) else PurePosixPath()
    directory = Path(mount_point) / relative
    return [directory, *(above for above in directory.parents if above.is_relative_to(mount_point))]


def parse_cpu_quota(text: str) -> float | None:
    """Cores from "quota period" in microseconds; "max" or a negative quota is none."""
    fields = text.split()
    if len(fields) != 2 or not fields[0].isdigit() or not fields[1].isdigit() or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


def parse_limit(texts: Iterable[str]) -> int | None:
    """The lowest of several limits in bytes; "max", "" and the huge number of v1 are none."""
    limits = [int(text) for text in texts if text.isdigit() and int(text) < UNLIMITED_BYTES]
    return min(limits, default=None)


def parse_page_cache(memory_stat: str) -> int:
    """Reclaimable file pages in bytes. v1 has the sums over the levels below under `total_`."""
    stat = dict(line.split(" ", 1) for line in memory_stat.splitlines() if " " in line)
    names = ("inactive_file", "active_file")
    return sum(int(stat.get(f"total_{name}", stat.get(name, "0"))) for name in names)
