"""The memory limit that a ComfyUI is told, by /proc and /sys trees of machines of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from miner.comfy import memory_limit
from miner.comfy.memory_limit import Limit, honored, limit

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
STAT = "anon 5\ninactive_file {}\nactive_file {}\nslab_reclaimable {}\n"


def machine(root: Path, *, mounts: str, cgroup: str, files: dict[str, object], memory: int = 64 * GIB) -> Path:
    """A machine's /proc and /sys under `root`."""
    proc = {
        "meminfo": f"MemTotal: {memory // 1024} kB\nMemFree: 1 kB\n",
        "self/mountinfo": mounts,
        "self/cgroup": cgroup,
    }
    for name, text in {**{f"proc/{name}": text for name, text in proc.items()}, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def group(folder: str, *, limit: object, used: int = 0, cached: int = 0, high: object = "max") -> dict[str, object]:
    """The files of a group of version 2."""
    stat = STAT.format(cached // 2, cached - cached // 2, 0)
    values = {"max": limit, "high": high, "current": used, "stat": stat}
    return {f"sys/fs/cgroup/{folder}memory.{name}": value for name, value in values.items()}


def old_group(folder: str, *, limit: object, used: int = 0, cached: int = 0) -> dict[str, object]:
    """The files of a group of version 1."""
    stat = f"cache 0\ntotal_inactive_file {cached}\ntotal_active_file 0\n"
    values = {"limit_in_bytes": limit, "usage_in_bytes": used, "stat": stat}
    return {f"sys/fs/cgroup/memory/{folder}memory.{name}": value for name, value in values.items()}


UNIT = "0::/system.slice/miner.service"
TOP = {"sys/fs/cgroup/memory.stat": "anon 1"}  # the machine's own group has no limit file


@pytest.mark.parametrize(
    ("mounts", "cgroup", "files", "expected"),
    [
        pytest.param(V2, "0::/", TOP, None, id="no limit"),
        pytest.param(V2, "0::/", group("", limit="max", used=GIB), None, id="a container without a limit"),
        pytest.param(
            V2, "0::/", group("", limit=8 * GIB, used=3 * GIB), Limit(8 * GIB, 5 * GIB, "memory.max"), id="a container"
        ),
        pytest.param(
            V2,
            "0::/",
            group("", limit=8 * GIB, used=7 * GIB, cached=4 * GIB),
            Limit(8 * GIB, 5 * GIB, "memory.max"),
            id="the page cache is free",
        ),
        pytest.param(V2, "0::/", group("", limit=64 * GIB), None, id="a limit of all that the machine has"),
        pytest.param(
            V2,
            UNIT,
            TOP | group("system.slice/", limit="max") | group("system.slice/miner.service/", limit=6 * GIB, used=GIB),
            Limit(6 * GIB, 5 * GIB, "system.slice/miner.service/memory.max"),
            id="a unit's MemoryMax",
        ),
        pytest.param(
            V2,
            UNIT,
            group("system.slice/miner.service/", limit=6 * GIB, high=4 * GIB, used=GIB),
            Limit(4 * GIB, 3 * GIB, "system.slice/miner.service/memory.high"),
            id="a unit's MemoryHigh",
        ),
        pytest.param(
            V2,
            UNIT,
            group("system.slice/", limit=10 * GIB, used=9 * GIB) | group("system.slice/miner.service/", limit=6 * GIB),
            Limit(10 * GIB, GIB, "system.slice/memory.max"),
            id="a slice whose other units use it up",
        ),
        pytest.param(
            V2,
            UNIT,
            group("system.slice/", limit=5 * GIB) | group("system.slice/miner.service/", limit="max"),
            Limit(5 * GIB, 5 * GIB, "system.slice/memory.max"),
            id="only the slice's limit",
        ),
        pytest.param(
            V2.replace("0:26 / ", "0:26 /kubepods/pod1/abc "),
            "0::/kubepods/pod1/abc",
            group("", limit=2 * GIB),
            Limit(2 * GIB, 2 * GIB, "memory.max"),
            id="the mount shows the own group alone",
        ),
        pytest.param(
            V2, "0::/../../outside", group("", limit=2 * GIB), Limit(2 * GIB, 2 * GIB, "memory.max"), id="outside"
        ),
        pytest.param(
            V1,
            "5:cpu:/\n4:memory:/docker/abc\n0::/",
            old_group("", limit=UNLIMITED_V1) | old_group("docker/abc/", limit=4 * GIB, used=2 * GIB, cached=GIB),
            Limit(4 * GIB, 3 * GIB, "memory/docker/abc/memory.limit_in_bytes"),
            id="version 1, on the host",
        ),
        pytest.param(
            V1.replace("0:32 / ", "0:32 /docker/abc "),
            "4:memory:/docker/abc",
            old_group("", limit=4 * GIB),
            Limit(4 * GIB, 4 * GIB, "memory/memory.limit_in_bytes"),
            id="version 1, in the container",
        ),
        pytest.param(
            f"{V2.replace('/sys/fs/cgroup ', '/sys/fs/cgroup/unified ')}\n{V1}",
            "4:memory:/a\n0::/a",
            {"sys/fs/cgroup/unified/a/cgroup.procs": 1} | old_group("a/", limit=3 * GIB),
            Limit(3 * GIB, 3 * GIB, "memory/a/memory.limit_in_bytes"),
            id="both versions, the memory in the first",
        ),
        pytest.param(V2, "0::/", group("", limit=2 * GIB, used=5 * GIB), Limit(2 * GIB, 0, "memory.max"), id="overrun"),
        pytest.param(V2, "0::/", group("", limit="7 apples"), None, id="no number"),
        pytest.param("rubbish\n1 2 - x", "rubbish", {}, None, id="rubbish"),
    ],
)
def test_the_limit_that_leaves_least_counts(
    tmp_path: Path, mounts: str, cgroup: str, files: dict[str, object], expected: Limit | None
) -> None:
    found = limit(system=machine(tmp_path, mounts=mounts, cgroup=cgroup, files=files))
    assert found == (expected and expected._replace(file=f"{tmp_path}/sys/fs/cgroup/{expected.file}"))


def test_nothing_is_readable(tmp_path: Path) -> None:
    assert limit(system=tmp_path) is None


Memory = namedtuple("Memory", "total available percent used free active cached")  # psutil's, on Linux


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (None, Memory(64, 40, 37.5, 20, 30, 9, 10)),
        (Limit(16, 12, ""), Memory(16, 12, 25.0, 4, 12, 9, 10)),
        (Limit(60, 50, ""), Memory(60, 40, 33.3, 20, 30, 9, 10)),  # the machine itself has less
        (Limit(16, 0, ""), Memory(16, 0, 100.0, 16, 0, 9, 10)),
    ],
)
def test_psutil_reports_the_limit(least: Limit | None, expected: Memory) -> None:
    assert honored(lambda: Memory(64, 40, 37.5, 20, 30, 9, 10), lambda: least)() == expected


def test_a_limit_that_changes_is_reported_at_the_next_call() -> None:
    limits = iter([Limit(16, 12, ""), Limit(32, 30, "")])
    told = honored(lambda: Memory(64, 40, 37.5, 20, 30, 9, 10), lambda: next(limits))
    assert [told().total, told().total] == [16, 32]


def test_main_py_runs_as_python_would_run_it(tmp_path: Path) -> None:
    """With its own folder on the path, and none of the miner's modules: `client` and `events` are ComfyUI's to name."""
    (tmp_path / "client.py").write_text("NAME = 'its own'")
    (tmp_path / "psutil.py").write_text("def virtual_memory():\n    return None")
    (tmp_path / "main.py").write_text(
        "import json, sys, client, psutil\n"
        "if __name__ == '__main__':\n"
        "    print(json.dumps([sys.argv, sys.path[0], client.NAME, __file__, psutil.virtual_memory.__name__]))\n"
        "    sys.exit(3)"
    )
    command = [sys.executable, memory_limit.__file__, "main.py", "--port", "1"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    folder = str(tmp_path.resolve())
    assert (ran.returncode, ran.stderr) == (3, "")
    assert json.loads(ran.stdout) == [["main.py", "--port", "1"], folder, "its own", "main.py", "within"]
