"""The program's clock: Unix seconds that never jump.

Time limits, pauses and durations use `now`, so a step of the machine's clock (NTP, a resumed VM, an operator) neither
ends a task nor extends one. What leaves the process, for people, the journal or Prometheus, is wall time: see `wall`.
"""

from __future__ import annotations

import time

_BEHIND = time.time() - time.monotonic()  # at the start


def now() -> float:
    """Wall time at the program's start plus the monotonic seconds since."""
    return _BEHIND + time.monotonic()


def wall(at: float) -> float:
    """A time of this clock as wall time. 0.0, which means never, stays 0.0."""
    return at + _stepped() if at else at


def from_wall(at: float) -> float:
    """A wall time, such as one that an earlier run wrote, as a time of this clock.

    If the machine's clock stepped since it was written, the result is off by that step.
    """
    return at - _stepped() if at else at


def _stepped() -> float:
    """Seconds that the wall clock has stepped since the start; whole ones, so that equal times stay equal."""
    return float(round(time.time() - now()))
