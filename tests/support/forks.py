"""Starts our Python programs by forking a process that has imported what they import: most of a start is imports.

`Fork` stands in for `subprocess.Popen`. What it starts is a process of its own, with its own environment, signals and
files; only its command line in /proc is the parent's. A program whose environment could change what an import does
(LD_PRELOAD, proxies, …) is not forked: see `can_fork`.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tests.support.paths import ROOT

IMPORTS = (
    "miner.cli.main",
    "miner.dashboard.app",
    "miner.doctor",
    "miner.engine.app",
    "miner.worker.supervisor",
    "miner.worker.systemd",
    "tests.support.devnet.build",
    "tests.support.trial_nodes",
)
OWN = ("XALORA_", "COMFYUI_", "PYTEST_", "PYTHONPATH")  # read when a program runs, not when it is imported
FIRST_ENVIRON = dict(os.environ)
CODE = struct.Struct("i")


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether this is a module in the environment of the tests themselves."""
    return list(command[:2]) == [sys.executable, "-m"] and _inherited(env) == _inherited(FIRST_ENVIRON)


def _inherited(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith(OWN)}


class Fork:
    """A program, with as much of Popen's face as the test beds use; its stdout is a pipe."""

    in_use = False  # set by conftest: campaigns measure programs that start by themselves

    def __init__(self, command: Sequence[str], *, stderr: TextIO, env: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        reading, stdout = os.pipe()
        self._status, status = os.pipe()
        job = {"argv": list(command[2:]), "env": dict(env), "cwd": str(Path.cwd())}
        socket.send_fds(_parent(), [json.dumps(job).encode()], [stdout, stderr.fileno(), status])
        os.close(stdout)
        os.close(status)
        self.stdout = os.fdopen(reading)
        self.args = list(command)
        (self.pid,) = CODE.unpack(os.read(self._status, CODE.size))

    def poll(self) -> int | None:
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            (self.returncode,) = CODE.unpack(os.read(self._status, CODE.size))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _parent() -> socket.socket:
    """The connection to the process that forks, started at the first call; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(theirs.fileno())],
        env={**_inherited(FIRST_ENVIRON), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


# ---- the process that forks -----------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> list[str] | None:
    """Fork at each request; returns in each child, with its arguments, and None once nobody asks any more."""
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    reports: dict[int, int] = {}  # process → where its end is reported
    while True:
        ready = select.select([control, wake], [], [])[0]
        if wake in ready:
            wake.recv(4096)
            _reap(reports)
        if control not in ready:
            continue
        message, files, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not message:
            for pid in reports:
                os.kill(pid, signal.SIGKILL)
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for end in (control, wake, woken):
                end.close()
            for report in (*reports.values(), files[2]):
                os.close(report)
            return _become(json.loads(message), files[0], files[1])
        reports[pid] = files[2]
        os.write(files[2], CODE.pack(pid))
        os.close(files[0])
        os.close(files[1])


def _reap(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        report = reports.pop(pid)
        try:
            os.write(report, CODE.pack(os.waitstatus_to_exitcode(status)))
        except BrokenPipeError:  # nobody waits for it
            pass
        finally:
            os.close(report)


def _become(job: dict, stdout: int, stderr: int) -> list[str]:
    """Make this process one that was started with `job`."""
    for given, number in ((stdout, 1), (stderr, 2)):
        os.dup2(given, number)
        os.close(given)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.path[0] = job["cwd"]
    return job["argv"]


if __name__ == "__main__":
    for name in IMPORTS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that collections in the children leave the shared pages alone
    if (arguments := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        sys.argv = ["", *arguments[1:]]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
