"""What is to happen, in order of time: the whole of a discrete-event simulation's clock.

Only the present hundredth of a second is kept in order. With 100,000 miners that halves the time of a run: a heap of
all that is due does not fit into a processor's cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

SLOTS = 100  # a second

Do = Callable[[float, Any], None]
"""Called with the time, and with what it is about."""

_Entry = tuple[float, int, Do, Any]


class Agenda:
    """Seconds from 0. What is due at the same time happens in the order in which it was written down."""

    def __init__(self) -> None:
        self._slot = 0  # the present one
        self._heap: list[_Entry] = []
        self._later: defaultdict[int, list[_Entry]] = defaultdict(list)  # by slot
        self._entries = 0

    def at(self, when: float, do: Do, about: Any) -> None:
        """Write down `do`. `when` must not lie in the past."""
        self._entries += 1
        slot = int(when * SLOTS)
        if slot > self._slot:
            self._later[slot].append((when, self._entries, do, about))
        else:
            heappush(self._heap, (when, self._entries, do, about))

    def run(self, until: float) -> None:
        """Let everything happen that is due by then, to the hundredth of a second."""
        while self._slot < until * SLOTS:
            heap = self._heap
            while heap:
                when, _, do, about = heappop(heap)
                do(when, about)
            self._slot += 1
            self._heap = self._later.pop(self._slot, [])
            heapify(self._heap)
