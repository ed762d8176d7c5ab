"""How a ComfyUI of ours ended, in words, and how often it did lately. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence

DEATHS_LIMIT = 5
DEATHS_WINDOW = 600.0  # seconds


def recent(deaths: Sequence[float], now: float) -> list[float]:
    """The deaths that still count at `now`."""
    return [at for at in deaths if now - at < DEATHS_WINDOW]


def too_many(deaths: Sequence[float], now: float) -> bool:
    """Whether there is something wrong that one more restart will not cure."""
    return len(recent(deaths, now)) >= DEATHS_LIMIT


def describe_ending(code: int | None) -> str:
    """An exit status (negative: a signal's number; None: unknown, it was not our child) in words."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with code {code}"
    suspicion = ", most often by the kernel for want of memory" if code == -signal.SIGKILL else ""
    return f"was ended by signal {-code} ({signal.strsignal(-code)}{suspicion})"
