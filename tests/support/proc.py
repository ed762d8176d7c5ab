"""What Linux says of a process, and of the machine: memory, and time on a CPU (proc(5)).

Sizes are in MB of 10**6 bytes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def rss(pid: int) -> float:
    """Resident memory now, MB."""
    return _status(pid, "VmRSS")


def peak_rss(pid: int) -> float:
    """The most resident memory since the start, or since `forget_peak`, MB."""
    return _status(pid, "VmHWM")


def virtual(pid: int) -> float:
    """Address space now, MB: what RLIMIT_AS limits."""
    return _status(pid, "VmSize")


def pss(pid: int) -> float:
    """Resident memory now, what is shared counted by its share, MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) * 1024 / 1e6


def threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def open_files(pid: int) -> tuple[int, int]:
    """How many descriptors are open: those that are no sockets, and sockets."""
    links = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(file.readlink().name)
    sockets = sum(link.startswith("socket:") for link in links)
    return len(links) - sockets, sockets


def forget_peak(pid: int) -> None:
    """Count the peak from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """Seconds on a CPU so far, in user and system mode, of all threads; in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_all(pid: int) -> float:
    """The same of a process and of all that descend from it, those that have ended included once they were waited for;
    0.0 of one that has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_of_all(int(child)) for child in children)


class Busy:
    """A context manager: how much of all cores was in use while its block ran, by whomever."""

    percent: float = 0.0

    def __enter__(self) -> Busy:
        self._before = _idle_and_all()
        return self

    def __exit__(self, *_: object) -> None:
        (idle, total), (idle_before, total_before) = _idle_and_all(), self._before
        self.percent = 100 * (1 - (idle - idle_before) / max(total - total_before, 1))


def _idle_and_all() -> tuple[int, int]:
    """Clock ticks of all cores since the machine's start."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _status(pid: int, key: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{key}:"))
    return int(kilobytes) * 1024 / 1e6
