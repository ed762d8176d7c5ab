"""A ComfyUI process that the miner manages: start, watch, stop, restart.

It promises that `stop` leaves nothing running, that a ComfyUI whose miner was killed is found again and kept if it
answers (its queue may hold our prompt), and that it gets neither the miner's terminal nor its secrets. It never decides
that ComfyUI is sick: the lane does, and asks for a restart. Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import structlog

from miner.comfy.client import ComfyClient, ComfyDown, ComfyFault
from miner.comfy.deaths import DEATHS_LIMIT, describe_ending, recent, too_many
from miner.comfy.launch import Launch, lane_folder
from miner.comfy.process_log import ProcessLog
from miner.comfy.process_tree import (
    KILL_WAIT,
    Process,
    all_processes,
    boot_id,
    command_line,
    end_tree,
    find_process,
    is_alive,
    members,
)
from miner.task.policy import backoff

log = structlog.get_logger()

PROBE_TIMEOUT = 2.0  # seconds for one /system_stats
PROBE_EVERY = 0.05
LOG_TAIL = 5  # lines shown of a failed start
COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ComfyProcess:
    """One thread calls `start`, `check`, `stop`, `kill`, `restart` and `tidy`; any thread may call the rest.

    `start_timeout`, `stop_grace` and `adopt_timeout` (for one left behind to answer) are seconds. `clock` times deaths,
    in seconds; `rng` is for the jitter of the back-off. `spawning`: around a start, for what must not interrupt it
    before the process is known.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        state: Path,
        start_timeout: float,
        stop_grace: float = 10.0,
        adopt_timeout: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        spawning: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.launch = launch
        folder = lane_folder(state, launch.lane)
        self.log_path = folder / "log"
        self.log = ProcessLog(self.log_path)
        self._pid_file = folder / "pid"
        self.start_timeout = start_timeout
        self._stop_grace = stop_grace
        self._adopt_timeout = adopt_timeout
        self._clock = clock
        self._rng = rng or random.Random()
        self._spawning = spawning
        self._process: Process | None = None  # None: not started, or stopped
        self._child: subprocess.Popen[bytes] | None = None  # the same process, unless it was adopted
        self._deaths: list[float] = []
        self._log_start = 0  # where the current process began to write

    # ---- its state ----------------------------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether its process exists. It may not answer all the same."""
        process, child = self._process, self._child
        if child is not None:
            child.poll()
        return process is not None and is_alive(process)

    @property
    def pid(self) -> int | None:
        """The id of the running process."""
        process = self._process
        return process.pid if process is not None and self.alive() else None

    def rss_bytes(self) -> int:
        """Resident bytes of the process and its children, shared pages counted for each; 0 if it is gone.

        Reads the whole process table, so call it between tasks, not on every tick.
        """
        process = self._process
        return sum(p.rss for p in members(process, all_processes())) if process is not None else 0

    @property
    def exhausted(self) -> str | None:
        """Why the lane must pause, as a sentence for the operator; None once the deaths are ten minutes old."""
        if not too_many(self._deaths, self._clock()):
            return None
        return f"ComfyUI died {DEATHS_LIMIT} times in ten minutes; see {self.log_path}"

    # ---- its life -----------------------------------------------------------------------------------------------

    def start(self, should_stop: threading.Event) -> None:
        """Block until ComfyUI answers; return at once if it does already.

        Raises ComfyDown, and leaves nothing running, if the port is in use, the process ends or is not ready after
        `start_timeout`, or `should_stop` is set.
        """
        if self._process is not None and not self.alive():
            self._count_death(f"ComfyUI {self._ending()}")
        if self._adopt(should_stop):
            return
        self.stop()
        if should_stop.is_set():
            raise ComfyDown("ComfyUI was not started: the miner is stopping")
        self._require_free_port()
        began = time.monotonic()
        self._spawn()
        if not self._answers(self.start_timeout, should_stop):
            raise self._give_up(should_stop)
        log.info("comfyui_started", pid=self.pid, url=self.launch.url, seconds=round(time.monotonic() - began, 1))

    def restart(self, reason: str, should_stop: threading.Event, *, death: bool = True) -> None:
        """Stop it, wait for the back-off, start it. Blocks and raises like `start`.

        `death=False` is for a healthy one, to free its memory: it does not count as a death, without a back-off.
        """
        if self._process is not None and death:
            self._count_death(reason)
        self.stop()
        if death:
            should_stop.wait(backoff(len(recent(self._deaths, self._clock())), rng=self._rng, base=1.0, cap=30.0))
        self.start(should_stop)

    def stop(self) -> None:
        """End it and all its children: SIGTERM, `stop_grace` seconds, SIGKILL. Does nothing if it is not running.

        Blocks until all are gone. Raises ComfyDown if one survives SIGKILL for KILL_WAIT seconds.
        """
        self._end(self._stop_grace)

    def kill(self) -> None:
        """End it and all its children at once, like `stop` without the grace."""
        self._end(0.0)

    def tidy(self) -> None:
        """Keep the log within its limit. Cheap; call it between tasks."""
        if self.log.tidy():
            self._log_start = 0

    def rehearse(self, *, port_is_ours: bool) -> None:
        """Raise ComfyDown if a start would fail for what can be seen now: its program or its port. Starts nothing."""
        program = self.launch.argv[0]
        if shutil.which(program, path=self.launch.env.get("PATH")) is None:
            raise ComfyDown(f"cannot start ComfyUI: no program {program}", hint="set XALORA_COMFYUI_PYTHON")
        if not port_is_ours and self._left_behind() is None:
            self._require_free_port()

    # ---- starting -----------------------------------------------------------------------------------------------

    def _adopt(self, should_stop: threading.Event) -> bool:
        """Keep a running ComfyUI, ours or a dead miner's, if its command line is the same and it answers."""
        own = self._process is not None
        self._process = self._process or self._left_behind()
        if self._process is None or command_line(self._process) != self.launch.argv:
            return False
        if not self._answers(self._adopt_timeout, should_stop):
            if own and not should_stop.is_set():
                self._count_death("ComfyUI does not answer")
            return False
        if not own:
            self._remember(self._process)
            log.info("comfyui_adopted", pid=self._process.pid, url=self.launch.url)
        return True

    def _left_behind(self) -> Process | None:
        """The process that an earlier miner started: from its pid file, or else by an equal command line."""
        try:
            found = json.loads(self._pid_file.read_text())
            if found["boot"] == boot_id():
                pid = int(found["pid"])
                return Process(pid=pid, started=int(found["started"]), parent=0, session=pid, rss=0)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return next((p for p in all_processes() if p.session == p.pid and command_line(p) == self.launch.argv), None)

    def _remember(self, process: Process) -> None:
        new = self._pid_file.with_name("pid.new")
        with suppress(OSError):  # a full disk: `_left_behind` can do without
            new.write_text(json.dumps({"pid": process.pid, "started": process.started, "boot": boot_id()}))
            new.replace(self._pid_file)

    def _require_free_port(self) -> None:
        where = urlsplit(self.launch.url)
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # like ComfyUI: TIME_WAIT is no obstacle
            try:
                probe.bind((where.hostname, where.port))
            except OSError as error:
                raise ComfyDown(
                    f"port {where.port} for ComfyUI is not available: {error.strerror}",
                    hint=f"`ss -ltnp 'sport = :{where.port}'` shows who uses it: stop it, or set XALORA_COMFYUI_PORT",
                ) from error

    def _spawn(self) -> None:
        self.tidy()
        with self._spawning():
            self._child = self._open_child()
            self._process = find_process(self._child.pid)
            if self._process is not None:
                self._remember(self._process)

    def _open_child(self) -> subprocess.Popen[bytes]:
        try:
            with self._open_log() as out:
                self._log_start = out.tell()
                # a file, not a pipe, so that it survives a killed miner; its own session, to end it whole
                return subprocess.Popen(
                    self.launch.argv,
                    cwd=self.launch.cwd,
                    env=dict(self.launch.env),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise ComfyDown(
                f"cannot start ComfyUI: {error.strerror}",
                hint=f"{error}; check XALORA_COMFYUI_HOME, XALORA_COMFYUI_PYTHON and XALORA_STATE_DIR",
            ) from error

    def _open_log(self) -> BinaryIO:
        """The log, to append to. ComfyUI runs without one where the disk has no room for it."""
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            return self.log_path.open("ab")
        except OSError as error:
            log.error("comfyui_log_not_written", reason=str(error), next="starting ComfyUI without a log")
            return Path(os.devnull).open("ab")

    def _answers(self, within: float, should_stop: threading.Event) -> bool:
        """Block until it answers; False if it ended, `within` seconds passed or `should_stop` was set."""
        deadline = time.monotonic() + within
        with closing(ComfyClient(self.launch.url, client_id="", timeout=min(PROBE_TIMEOUT, within))) as client:
            while self.alive() and not should_stop.is_set() and time.monotonic() < deadline:
                with suppress(ComfyFault):
                    client.stats()
                    return self.alive()
                should_stop.wait(PROBE_EVERY)
        return False

    def _give_up(self, should_stop: threading.Event) -> ComfyDown:
        """End a process that did not get ready; returns the error to raise."""
        if should_stop.is_set():
            self.stop()
            return ComfyDown("ComfyUI was stopped during its start")
        reason = f"was not ready after {self.start_timeout:g} s" if self.alive() else self._ending()
        # no task has reached it yet, so these lines contain nothing of a consumer
        last_words = tail(self.log_path, self._log_start)
        self._count_death(f"ComfyUI {reason} during its start", last_words)
        self.stop()
        said = f'its last line: "{last_words[-1]}"; ' if last_words else ""
        return ComfyDown(f"ComfyUI {reason} during its start", hint=f"{said}see {self.log_path}")

    # ---- ending -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ComfyDown if it has ended by itself. SIGKILL is the kernel's, when memory has run out.

        Cheap while it runs; afterwards blocks like `_exit_code`.
        """
        if self._process is not None and not self.alive():
            out_of_memory = self._exit_code() == -signal.SIGKILL
            raise ComfyDown(f"ComfyUI {self._ending()}", fault="memory" if out_of_memory else None)

    def _ending(self) -> str:
        return describe_ending(self._exit_code())

    def _exit_code(self) -> int | None:
        """Of one that has ended; None if it was not our child.

        It counts as gone with its main thread, but has an exit code only after its last thread, which may have
        gigabytes to return first. Blocks for up to KILL_WAIT seconds.
        """
        if self._child is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(KILL_WAIT)
        return self._child.returncode

    def _count_death(self, reason: str, last_words: Sequence[str] = ()) -> None:
        now = self._clock()
        self._deaths = [*recent(self._deaths, now), now]
        log.warning(
            "comfyui_died",
            reason=reason,
            deaths=len(self._deaths),
            last_words=list(last_words) or None,
            log=str(self.log_path),
            next="restarting it; five deaths in ten minutes pause the lane",
        )

    def _end(self, grace: float) -> None:
        process = self._process
        if process is None:
            return
        if not end_tree(process, grace=grace):
            raise ComfyDown(
                f"ComfyUI's process {process.pid} survives SIGKILL",
                hint="it hangs in the kernel, usually in the GPU driver: see dmesg; the machine may need a reboot",
            )
        if self._child is not None:
            self._child.wait()
        self._process = self._child = None
        with suppress(OSError):  # a disk that became read-only; the pid's start time tells it from a later process
            self._pid_file.unlink(missing_ok=True)


def tail(path: Path, start: int, lines: int = LOG_TAIL) -> list[str]:
    """The last lines written to `path` after byte `start`, without blank lines and color codes; none if unreadable."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - 8192))
            text = COLOR.sub("", file.read().decode(errors="replace"))
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-lines:]
