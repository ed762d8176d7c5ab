"""A process and its descendants, from Linux's /proc: find them, read their memory, end them.

A process is identified by its id and start time, so a reused id is never mistaken for it. Zombies count as gone: they
hold nothing, and in a container without an init nobody may reap them. A process that ends while it is read counts as
missing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)  # the last if /proc hides other users' processes
PAGE = os.sysconf("SC_PAGE_SIZE")
KILL_WAIT = 10.0  # seconds after SIGKILL until a process counts as stuck in the kernel

_NEVER = threading.Event()  # to wait on: nothing announces the end of a process that is not our child


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process at the time it was read."""

    pid: int
    started: int  # clock ticks since the machine's boot
    parent: int
    session: int  # the id of its session's leader
    rss: int  # resident bytes, shared pages included
    zombie: bool = False


def find_process(pid: int) -> Process | None:
    """The process with this id, or None."""
    try:
        return parse_stat((PROC / str(pid) / "stat").read_text())
    except GONE:
        return None


def parse_stat(text: str) -> Process:
    """One line of /proc/<pid>/stat, see proc_pid_stat(5). The name in parentheses may itself hold any character."""
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()  # fields[0] is the manual's field 3
    return Process(
        pid=int(pid),
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        rss=int(fields[21]) * PAGE,
        zombie=fields[0] in "ZX",
    )


def all_processes() -> tuple[Process, ...]:
    """Every process visible to this one."""
    found = (find_process(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdecimal())
    return tuple(process for process in found if process is not None)


def members(leader: Process, among: Collection[Process]) -> tuple[Process, ...]:
    """The session of `leader` and all its descendants, including those with a session of their own.

    After the leader is gone its session is still found, since the kernel does not reuse the id while the session has
    members; descendants outside of it are not.
    """
    if any(p.pid == leader.pid and p.started != leader.started for p in among):
        return ()  # the id was reused, so the session has ended
    found = {p.pid for p in among if p.session == leader.pid or p.pid == leader.pid}
    while more := {p.pid for p in among if p.parent in found} - found:
        found |= more
    return tuple(p for p in among if p.pid in found)


def is_alive(process: Process) -> bool:
    """Whether the process still runs."""
    now = find_process(process.pid)
    return now is not None and now.started == process.started and not now.zombie


def end_tree(leader: Process, *, grace: float) -> bool:
    """End the whole tree: SIGTERM, `grace` seconds for the leader, then SIGKILL for the rest.

    Blocks until all are gone; returns False if one survives SIGKILL for KILL_WAIT seconds. Without grace, SIGKILL is
    sent at once.
    """
    found = members(leader, all_processes())  # now, since nothing links a child to us once its parent is gone
    if grace > 0 and is_alive(leader):
        for sign in (signal.SIGTERM, signal.SIGCONT):  # a stopped process gets a signal only when it continues
            with suppress(ProcessLookupError):
                os.killpg(leader.pid, sign)
        _until(lambda: not is_alive(leader), grace)
    return _until(lambda: not _kill(leader, found), KILL_WAIT)


def _kill(leader: Process, known: Collection[Process]) -> bool:
    """Send SIGKILL to every known member and to new ones; returns whether any was alive."""
    left = [p for p in (*known, *members(leader, all_processes())) if is_alive(p)]
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return bool(left)


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        _NEVER.wait(0.02)
    return True


def command_line(process: Process) -> tuple[str, ...]:
    """Its command line, or () if it is gone or not readable."""
    try:
        raw = (PROC / str(process.pid) / "cmdline").read_bytes()
    except GONE:
        return ()
    return tuple(os.fsdecode(raw).split("\0")[:-1])


def boot_id() -> str:
    """Identifies this boot of the machine: ids and start times repeat across boots."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
