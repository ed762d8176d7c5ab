"""What is kept of the LoRAs that tasks name, and for which hosts no more is tried for now. Pure: times are arguments.

Promises: a LoRA that a task in hand needs is never chosen for eviction; of the others, the least recently used go
first, and none goes unless that makes enough room.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

FAILURES = 3  # of a host in a row, before it is left alone
FIRST_PAUSE = 60.0  # seconds
LONGEST_PAUSE = 900.0
PROBE = 45.0  # seconds that one request has, after a pause, to show that the host is back


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One file on the shelf, under the hash of its content."""

    sha256: str
    size: int  # bytes
    base: str  # "" where its tensors do not tell
    keys: frozenset[str]  # of the references that it was fetched for
    origin: str  # the first of those, for operators
    used_at: float  # Unix seconds
    fetched_at: float


def to_evict(shelf: Iterable[Kept], *, needed: Collection[str], room: int, taken: int, quota: int) -> list[Kept] | None:
    """What has to go so that `room` more bytes fit: the least recently used. None: it cannot fit now.

    `needed`: keys of references that tasks in hand name. `taken`: bytes that downloads under way may still fill.
    """
    shelf = list(shelf)
    over = sum(one.size for one in shelf) + taken + room - quota
    chosen: list[Kept] = []
    for one in sorted(shelf, key=lambda one: (one.used_at, one.sha256)):
        if over <= 0:
            break
        if one.keys.isdisjoint(needed):
            chosen.append(one)
            over -= one.size
    return chosen if over <= 0 else None


@dataclass(slots=True)
class _Host:
    failures: int = 0  # in a row
    until: float = 0.0
    reason: str = ""


@dataclass(slots=True)
class Breaker:
    """For each host: after some failures in a row nothing is asked of it for a while, longer each time; then one
    request has to show that it is back. For one thread at a time."""

    _hosts: dict[str, _Host] = field(default_factory=dict)

    def refusal(self, host: str, *, now: float) -> str:
        """Why nothing may be asked of `host` now, as a clause; "" if it may, which takes the place of the one request
        after a pause."""
        state = self._hosts.get(host)
        if state is None or state.failures < FAILURES:
            return ""
        if now < state.until:
            return f"{state.reason}, and is left alone for a while"
        state.until = now + PROBE
        return ""

    def failed(self, host: str, reason: str, *, now: float, for_all: bool = False) -> bool:
        """`host` did not answer as it should, whatever it is asked if `for_all`. Whether it is left alone now."""
        state = self._hosts.setdefault(host, _Host())
        state.failures = max(state.failures + 1, FAILURES if for_all else 0)
        state.reason = reason
        if state.failures < FAILURES:
            return False
        state.until = now + min(FIRST_PAUSE * 2.0 ** min(state.failures - FAILURES, 10), LONGEST_PAUSE)
        return True

    def worked(self, host: str) -> None:
        self._hosts.pop(host, None)
