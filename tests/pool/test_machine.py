"""Limits read from files as kernels write them, and one real reading."""

from __future__ import annotations

import os
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from axion_llm.pool import machine
from axion_llm.pool.machine import Memory, cgroup_directories, parse_cpu_quota, parse_limit, parse_page_cache

GIB = 1 << 30

V2_CGROUP = "0::/system.slice/axion.service\n"
V2_MOUNTS = "31 23 0:28 / /sys/fs/cgroup rw,nosuid,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

V1_CGROUP = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"
V1_MOUNTS = """\
30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
32 30 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,relatime - cgroup cgroup rw,cpu,cpuacct
35 30 0:32 /docker/abc /sys/fs/cgroup/memory ro,relatime master:9 - cgroup cgroup rw,memory
"""


def test_directories_of_v2_go_up_to_the_mount() -> None:
    assert cgroup_directories("memory", V2_CGROUP, V2_MOUNTS) == [
        Path("/sys/fs/cgroup/system.slice/axion.service"),
        Path("/sys/fs/cgroup/system.slice"),
        Path("/sys/fs/cgroup"),
    ]


def test_directories_of_v1_are_the_controllers() -> None:
    assert cgroup_directories("memory", V1_CGROUP, V1_MOUNTS) == [Path("/sys/fs/cgroup/memory")]
    assert cgroup_directories("cpu", V1_CGROUP, V1_MOUNTS) == [Path("/sys/fs/cgroup/cpu,cpuacct")]


def test_a_container_that_sees_the_hosts_names() -> None:
    mounts = V2_MOUNTS.replace(" / /sys", " /kubepods/pod1 /sys")
    assert cgroup_directories("cpu", "0::/kubepods/pod1/c\n", mounts)[0] == Path("/sys/fs/cgroup/c")
    assert cgroup_directories("cpu", "0::/elsewhere\n", mounts) == [Path("/sys/fs/cgroup")]


@pytest.mark.parametrize("text", ["", "no colons here", "0::"])
def test_no_cgroups_no_directories(text: str) -> None:
    assert cgroup_directories("cpu", text, "") == []


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("150000 100000", 1.5),
        ("max 100000", None),
        ("-1 100000", None),
        ("50000 100000", 0.5),
        ("", None),
        (" ", None),
        ("100 0", None),
    ],
)
def test_cpu_quota(text: str, cores: float | None) -> None:
    assert parse_cpu_quota(text) == cores


def test_memory_limit_is_the_lowest_there_is() -> None:
    assert parse_limit([str(2 * GIB), str(GIB), ""]) == GIB
    assert parse_limit(["max", "max", ""]) is None
    assert parse_limit(["", "", "9223372036854771712"]) is None


def test_page_cache_of_both_versions() -> None:
    assert parse_page_cache("anon 5\nfile 9\ninactive_file 300\nactive_file 40\n") == 340
    v1 = "cache 1\ninactive_file 1\nactive_file 2\ntotal_inactive_file 500\ntotal_active_file 60\n"
    assert parse_page_cache(v1) == 560
    assert parse_page_cache("") == 0


def test_available_is_the_lesser_of_machine_and_cgroup() -> None:
    assert Memory(8 * GIB, 16 * GIB).available_bytes == 8 * GIB
    assert Memory(8 * GIB, 16 * GIB, 4 * GIB, 1 * GIB).available_bytes == 3 * GIB
    assert Memory(2 * GIB, 16 * GIB, 4 * GIB, 1 * GIB).available_bytes == 2 * GIB
    assert Memory(8 * GIB, 16 * GIB, 4 * GIB, 5 * GIB).available_bytes == 0


def directory(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text + "\n")
    return path


def test_reads_the_tightest_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [
        directory(tmp_path / "leaf", memory__max="max", memory__current="1"),
        directory(
            tmp_path / "middle",
            memory__max="3000",
            memory__high="2500",
            memory__current="2000",
            memory__stat="inactive_file 600\nactive_file 100",
            cpu__max="200000 100000",
        ),
        directory(tmp_path / "root", memory__max="9000", memory__current="5000", cpu__max="max 100000"),
        directory(
            tmp_path / "v1",
            memory__limit_in_bytes="8000",
            memory__usage_in_bytes="700",
            cpu__cfs_quota_us="150000",
            cpu__cfs_period_us="100000",
        ),
    ]
    monkeypatch.setattr(machine, "_directories", lambda controller: iter(levels))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    memory = machine.read_memory()
    assert (memory.cgroup_limit_bytes, memory.cgroup_used_bytes) == (2500, 1300)
    assert machine.available_memory_bytes() == 1200
    assert machine.available_cores() == 1
    levels.pop()
    assert machine.available_cores() == 2


def test_this_machine() -> None:
    assert 1 <= machine.available_cores() <= len(os.sched_getaffinity(0))
    assert 0 < machine.available_memory_bytes() <= psutil.virtual_memory().total
    assert 0 < machine.mapped_bytes(os.getpid()) < GIB
    assert machine.mapped_bytes(None) == machine.mapped_bytes(2**22 + 1) == 0
