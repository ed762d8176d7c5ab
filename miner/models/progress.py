"""What is told of a download while it goes on, and how it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from miner.task.errors import MinerError


class Stopped(MinerError):
    """The operator stopped it. What was fetched is kept."""

    def __init__(self) -> None:
        super().__init__("stopped; the same command goes on where it was")


class Stop:
    """The operator's wish to stop: set once, from any thread, and seen by all."""

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
        """Blocks for so long. Raises Stopped at once when it is set."""
        if self._event.wait(seconds):
            raise Stopped

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Calls `interrupt` if it is set inside the `with`, for what waits for something else than this."""
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
    """Whoever looks on. Called from several threads, one for each place at a time; must not block for long."""

    def update(self, name: str, done: int, total: int | None) -> None:
        """`done` bytes of `total` (None: nobody knows) are there."""

    def message(self, name: str, text: str) -> None:
        """One sentence in the present tense about what happens to it now, out of the ordinary."""
