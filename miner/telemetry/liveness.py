"""Whether a loop is alive.

Promises: a loop that does not beat by the time it promised is late. Never: stops or restarts anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

TURN = 60.0  # seconds; more than a local step takes
REMOTE = 600.0  # seconds; more than a step that waits for another machine takes
IDLE = float("inf")  # for a loop that waits for another one


@dataclass(slots=True)
class Liveness:
    """Of one loop. The loop beats; any thread may read."""

    clock: Callable[[], float] = time.monotonic
    beaten_at: float = 0.0
    due_at: float = IDLE  # not late before the first beat

    def beat(self, within: float = TURN) -> None:
        """The loop is alive, and will beat again within `within` seconds."""
        self.beaten_at = self.clock()
        self.due_at = self.beaten_at + within

    @property
    def late(self) -> float:
        """Seconds that the next beat is overdue; else 0.0."""
        return max(self.clock() - self.due_at, 0.0)
