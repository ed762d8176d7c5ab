"""What one picture costs: the CPU and memory of the decoder that had it, and the memory of this process."""

from __future__ import annotations

import os
import resource
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from miner.media.decoders import shared
from tests.support import proc

_EVERY = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, and MB."""

    wall: float
    cpu: float
    memory: float  # the decoder's peak, above what it had before
    own: float  # this process's peak, above what it had before


class Meter:
    """A context manager; `cost` afterwards. CPU is that of all decoders, dead ones too."""

    cost: Cost

    def __enter__(self) -> Meter:
        self._cpu, self._base, self._peak = {}, {}, 0.0  # by pid
        self._dead = _reaped()
        for pid in shared.pids:
            with suppress(OSError):
                proc.forget_peak(pid)
                self._base[pid] = proc.peak_rss(pid)
                self._cpu[pid] = proc.cpu_seconds(pid)
        self._living = dict(self._cpu)
        proc.forget_peak(_SELF)
        self._own = proc.peak_rss(_SELF)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        wall = time.monotonic() - self._began
        self._over.set()
        self._thread.join()
        self._look()
        started = dict.fromkeys(self._cpu, 0.0) | self._living
        alive = set(shared.pids)
        used = sum(self._cpu[pid] - started[pid] for pid in self._cpu if pid in alive)
        gone = sum(started[pid] for pid in started if pid not in alive)
        self.cost = Cost(
            wall=wall,
            cpu=used + max(_reaped() - self._dead - gone, 0.0),
            memory=self._peak,
            own=proc.peak_rss(_SELF) - self._own,
        )

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        for pid in shared.pids:
            with suppress(OSError, StopIteration):
                self._cpu[pid] = proc.cpu_seconds(pid)
                self._base.setdefault(pid, proc.rss(pid))
                self._peak = max(self._peak, proc.peak_rss(pid) - self._base[pid])


_SELF = os.getpid()


def _reaped() -> float:
    """CPU seconds of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
