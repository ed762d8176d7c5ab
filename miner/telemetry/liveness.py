"""Whether a loop still turns.

Promises: a loop that says by when it will be back, and is not, shows as late. Never: stops or restarts anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

TURN = 60.0  # seconds; more than a step on this machine takes
REMOTE = 600.0  # … and than one takes that waits for another machine
IDLE = float("inf")  # for a loop that waits for another loop


@dataclass(slots=True)
class Liveness:
    """One loop's. The loop beats; any thread may look."""

    clock: Callable[[], float] = time.monotonic
    beaten_at: float = 0.0
    due_at: float = IDLE  # nothing is promised before the first beat

    def beat(self, within: float = TURN) -> None:
        """The loop turns, and will do so again `within` seconds."""
        self.beaten_at = self.clock()
        self.due_at = self.beaten_at + within

    @property
    def late(self) -> float:
        """Seconds for which it has been overdue; 0.0 while it is not."""
        return max(self.clock() - self.due_at, 0.0)
