"""The memory limit of the container or unit that this runs in; and, run as a program, a ComfyUI that keeps within it.

ComfyUI sizes its caches and pinned memory by `psutil.virtual_memory()`, which shows the whole machine: one that may use
less is killed by the kernel. Its own switches cannot help: 0.33.0 compares `--cache-ram` with the machine's free memory
too, which other containers change, and bounds pinned memory by nothing else (`comfy/model_management.py`,
`ensure_pin_budget`; `comfy_execution/caching.py`, `RAMPressureCache`). So ComfyUI's Python runs this file, which makes
psutil report the limit, and then `main.py`.

Only the standard library, since the miner's packages are not in that Python. Reads /proc and /sys; changes nothing
outside of its own process.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""Of cgroup v2, where `high` slows down a process that exceeds it, and of v1, in bytes."""
USED = ("memory.current", "memory.usage_in_bytes")
RECLAIMABLE = {
    "memory.current": ("inactive_file", "active_file", "slab_reclaimable"),
    "memory.usage_in_bytes": ("total_inactive_file", "total_active_file"),
}
"""Lines of `memory.stat`, in bytes: pages that the kernel drops before it kills, as in its own MemAvailable."""


class Limit(NamedTuple):
    """The limit that leaves the least."""

    total: int  # bytes
    free: int  # bytes, files in the page cache counted as free
    file: str  # where it is set


# ---- reading it -------------------------------------------------------------------------------------------------


def limit(groups: tuple[Path, ...] | None = None, *, system: Path = Path("/")) -> Limit | None:
    """The limit in force, if it is below the machine's memory. `groups`: what `memory_groups` returned, to save time.

    `system` is where /proc and /sys are. Raises nothing.
    """
    machine, groups = machine_memory(system), memory_groups(system) if groups is None else groups
    found = [one for group in groups if (one := _limit(group)) and one.total < machine]
    return min(found, key=lambda one: (one.free, one.total), default=None)


def machine_memory(system: Path = Path("/")) -> int:
    """The machine's memory in bytes; 0 if unknown."""
    return _pairs(system / "proc/meminfo").get("MemTotal:", 0) * 1024


def memory_groups(system: Path = Path("/")) -> tuple[Path, ...]:
    """This process's control groups, of both versions, and all that contain them: the innermost first."""
    mounts = dict(_mounts(_text(system / "proc/self/mountinfo")))
    found: list[Path] = []
    for line in _text(system / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        kind = controllers if not controllers else "memory" if "memory" in controllers.split(",") else None
        if kind in mounts:
            root, point = mounts[kind]
            found += _upwards(system / point.lstrip("/"), _below(root, path))
    return tuple(found)


def _mounts(mountinfo: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """The hierarchies by name: of version 1 "memory", of 2 "". (The group at the mount's top, the mount's path), each.

    See proc(5) and cgroups(7).
    """
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        where = (fields[3].replace("\\040", " "), fields[4].replace("\\040", " "))
        if kind[0] == "cgroup2":
            yield "", where
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield "memory", where


def _below(root: str, path: str) -> str:
    """The group's path below the mount. "" in a container that sees its own group as the mount's top."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return path[len(root.rstrip("/")) :].strip("/") if inside and ".." not in path.split("/") else ""


def _upwards(top: Path, below: str) -> Iterator[Path]:
    folder = top / below
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _limit(group: Path) -> Limit | None:
    limits = [(int(text), group / name) for name in LIMITS if (text := _text(group / name).strip()).isdecimal()]
    used = next(((int(text), name) for name in USED if (text := _text(group / name).strip()).isdecimal()), None)
    if not limits or used is None:
        return None
    total, file = min(limits)
    stat = _pairs(group / "memory.stat")
    taken = used[0] - sum(stat.get(name, 0) for name in RECLAIMABLE[used[1]])
    return Limit(total, min(max(total - taken, 0), total), str(file))


def _pairs(path: Path) -> Mapping[str, int]:
    """Lines of a name and a number."""
    lines = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# ---- telling ComfyUI --------------------------------------------------------------------------------------------


def honored(virtual_memory: Callable[[], Any], current: Callable[[], Limit | None]) -> Callable[[], Any]:
    """psutil's `virtual_memory`, within the limit. `current`: asked at each call, since a limit can be changed."""

    def within() -> Any:
        machine, least = virtual_memory(), current()
        if least is None:
            return machine
        free = min(machine.available, least.free)
        used = least.total - free
        percent = round(100 * used / least.total, 1) if least.total else 100.0
        told = {"total": least.total, "available": free, "used": used, "free": min(machine.free, free)}
        return machine._replace(percent=percent, **told)

    return within


def main() -> None:
    """Run the program in the arguments, ComfyUI's main.py, as Python would, but for psutil."""
    sys.path[0] = str(Path.cwd())  # it is this file's folder, and the miner's modules are not ComfyUI's
    sys.argv = sys.argv[1:]
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:  # main.py says so itself
        pass
    else:
        groups = memory_groups()
        psutil.virtual_memory = honored(psutil.virtual_memory, lambda: limit(groups))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
