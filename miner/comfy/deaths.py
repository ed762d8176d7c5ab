"""How a ComfyUI process ended, in words, and how often it died recently. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence

DEATHS_LIMIT = 5
DEATHS_WINDOW = 600.0  # seconds


def recent(deaths: Sequence[float], now: float) -> list[float]:
    """The deaths that still count at `now` (seconds)."""
    return [at for at in deaths if now - at < DEATHS_WINDOW]


def too_many(deaths: Sequence[float], now: float) -> bool:
    """Whether another restart will not help."""
    return len(recent(deaths, now)) >= DEATHS_LIMIT


def describe_ending(code: int | None) -> str:
    """An exit status in words. Negative: a signal's number; None: unknown, since it was not our child."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with code {code}"
    suspicion = ", usually by the kernel when memory runs out" if code == -signal.SIGKILL else ""
    return f"was killed by signal {-code} ({signal.strsignal(-code)}{suspicion})"
