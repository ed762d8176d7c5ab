"""The progress of a download, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from miner.task.errors import MinerError


class Stopped(MinerError):
    """The operator stopped it. The downloaded bytes are kept."""

    def __init__(self) -> None:
        super().__init__("stopped; run the same command to resume")


class Stop:
    """The operator's request to stop: set once, from any thread, and seen by all."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._mutex = threading.Lock()
        self._interrupts: list[Callable[[], None]] = []

    def set(self) -> None:
        self._event.set()
        with self._mutex:
            for interrupt in self._interrupts:
                interrupt()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Blocks for `seconds`. Raises Stopped as soon as it is set."""
        if self._event.wait(seconds):
            raise Stopped

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Calls `interrupt` if it is set inside the `with`, to end a wait on something else."""
        with self._mutex:
            self._interrupts.append(interrupt)
        try:
            if self.is_set():
                raise Stopped
            yield
        finally:
            with self._mutex:
                self._interrupts.remove(interrupt)


class Progress(Protocol):
    """Receives the progress of files, by their relative paths. Called from several threads, one for each file at a
    time; must not block for long."""

    def update(self, name: str, done: int, total: int | None) -> None:
        """`done` bytes of `total` (None: unknown) are present."""

    def message(self, name: str, text: str) -> None:
        """A sentence about something unusual, in the present tense."""
