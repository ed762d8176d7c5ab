"""What a run came to, out of what the sequencer counted. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from tests.campaigns.fleet.sequencer import TENTHS


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a peak is: the requests in the busiest second, wherever that begins. Not a number: there was nothing."""

    mean: float  # requests a second, before anything happens, and so are `peak` and the leases
    peak: int
    lease_p50: float  # seconds from a task's creation to its lease, by the sequencer's clock
    lease_p99: float
    missed_peak: int  # while it was down
    after_peak: int
    later_peak: int  # the same, but for the first ten seconds
    back_p50: float  # seconds after the outage until half of those that noticed it have got through
    created: int  # tasks, from the start to the end
    leased: int
    answered: int
    repeated: int  # leased or answered more than once

    @property
    def ratio(self) -> float:
        """The busiest second afterwards, in means of before."""
        return self.after_peak / self.mean


def busiest_second(tenths: array[int], start: float, end: float) -> int:
    """The most in any ten tenths in a row that lie between these seconds; 0 if there are not so many."""
    counts = tenths[round(start * TENTHS) : round(end * TENTHS)]
    if len(counts) < TENTHS:
        return 0
    here = most = sum(counts[:TENTHS])
    for new, old in zip(counts[TENTHS:], counts, strict=False):
        here += new - old
        most = max(most, here)
    return most


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; not a number if there are none."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))] if ordered else float("nan")
