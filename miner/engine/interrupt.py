"""The flag that asks a run to end. It takes effect between nodes, steps and tiles."""

from __future__ import annotations

import threading


class Interrupted(Exception):
    """The run ends because it was asked to."""


class Interrupt:
    """Set from any thread, heeded by the executor's. Setting it while nothing runs has no effect on a later prompt."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        self._asked.set()

    def forget(self) -> None:
        self._asked.clear()

    def heed(self) -> None:
        """Raise Interrupted, once, if it was asked for."""
        if self._asked.is_set():
            self._asked.clear()
            raise Interrupted

    def wait(self, seconds: float) -> None:
        """Block for `seconds`, or until asked; Interrupted then."""
        self._asked.wait(seconds)
        self.heed()
