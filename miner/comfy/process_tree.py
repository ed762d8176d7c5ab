"""A process and all that came of it, as Linux tells in /proc: who they are, their memory, their end.

A process is named by its id and the time the kernel started it, so that a recycled id is never taken for it. Zombies
count as gone: they hold nothing, and in a container without an init nobody may ever reap them. A process that ends
while it is looked at is simply not there.
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
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)  # the last where /proc hides other users' processes
PAGE = os.sysconf("SC_PAGE_SIZE")
KILL_WAIT = 10.0  # seconds after SIGKILL until a process counts as stuck in the kernel

_NEVER = threading.Event()  # to wait on: the end of a process that is not our child announces itself to nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process as it was when it was looked at."""

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
    """Every process that this one can see."""
    found = (find_process(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdecimal())
    return tuple(process for process in found if process is not None)


def members(leader: Process, among: Collection[Process]) -> tuple[Process, ...]:
    """The session that `leader` leads, and all descendants of it, even those that left for a session of their own.

    Still finds its session once the leader is gone: the kernel gives its id to nobody while the session has members.
    Who left the session is beyond finding then.
    """
    if any(p.pid == leader.pid and p.started != leader.started for p in among):
        return ()  # the id is another process's now, so the session had ended
    found = {p.pid for p in among if p.session == leader.pid or p.pid == leader.pid}
    while more := {p.pid for p in among if p.parent in found} - found:
        found |= more
    return tuple(p for p in among if p.pid in found)


def is_alive(process: Process) -> bool:
    """Whether it is still alive."""
    now = find_process(process.pid)
    return now is not None and now.started == process.started and not now.zombie


def end_tree(leader: Process, *, grace: float) -> bool:
    """End the whole tree: SIGTERM, `grace` seconds for the leader, then SIGKILL for whoever is left.

    Blocks until all are gone; False when one is still there KILL_WAIT seconds after SIGKILL. With no grace, SIGKILL
    comes first.
    """
    found = members(leader, all_processes())  # now: once its parent is gone, nothing ties a child to us
    if grace > 0 and is_alive(leader):
        for sign in (signal.SIGTERM, signal.SIGCONT):  # a stopped process takes a signal only when it goes on
            with suppress(ProcessLookupError):
                os.killpg(leader.pid, sign)
        _until(lambda: not is_alive(leader), grace)
    return _until(lambda: not _kill(leader, found), KILL_WAIT)


def _kill(leader: Process, known: Collection[Process]) -> bool:
    """SIGKILL for every member, and for those that came since; whether there was any."""
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
    """Its command line, or () when it is gone or not ours to read."""
    try:
        raw = (PROC / str(process.pid) / "cmdline").read_bytes()
    except GONE:
        return ()
    return tuple(os.fsdecode(raw).split("\0")[:-1])


def boot_id() -> str:
    """Tells one boot of this machine from the next, across which ids and start times repeat."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
