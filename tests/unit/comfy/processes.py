"""What the tests of ComfyUI's process share: all processes are real ones."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable

from miner.comfy.process import ComfyProcess
from miner.comfy.process_tree import find_process, is_alive
from tests.support.testbed import until

GO_ON = threading.Event()  # never set
LONG = 60.0  # seconds; nothing here should take that long

Make = Callable[..., ComfyProcess]
Orphan = Callable[..., int]


class NoJitter(random.Random):
    def uniform(self, a: float, _b: float) -> float:
        return a


def pid_of(process: ComfyProcess) -> int:
    pid = process.pid
    assert pid is not None
    return pid


def is_running(pid: int) -> bool:
    process = find_process(pid)
    return process is not None and is_alive(process)


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid), why="its death")


def children_of(process: ComfyProcess) -> list[int]:
    words = process.log_path.read_text().split()
    return [int(pid) for pid in words[words.index("children") + 1 :][:2]]
