"""The model of a sequencer: a queue of tasks, a lease a miner, requests that may be held, and outages.

It answers at once, whatever comes; what it would have to bear is counted instead. Leases and the queue outlast an
outage. While it is down nobody can create a task either.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tests.campaigns.fleet.agenda import Agenda

if TYPE_CHECKING:
    from tests.campaigns.fleet.miner import Miner

TENTHS = 10  # of a second, in which requests are counted, so that the busiest second may begin at any

Kind = Literal["refuses", "answers first", "silent"]
"""How it goes down: connections are cut and refused; what it holds is answered with nothing before that; its machine
is gone, and nobody is told."""

NOTHING: Final = "nothing to do"
RUNNING: Final = "running"
HELD: Final = "held"


@dataclass(slots=True)
class Task:
    number: int


Answer = Task | Literal["nothing to do", "running", "held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    kind: Kind
    ends: float


class Sequencer:
    """Times are the agenda's; a request is counted when it arrives."""

    def __init__(self, agenda: Agenda, *, horizon: float) -> None:
        self._agenda = agenda
        self._waiting: deque[Task] = deque()
        self._held: dict[Miner, float] = {}  # until when
        self._order: deque[tuple[Miner, float]] = deque()  # the same, the oldest first, with some that are over
        self._leases: dict[Miner, Task] = {}
        self.outage: Outage | None = None
        self.arrived = array("L", bytes(array("L").itemsize * (int(horizon + 1) * TENTHS)))  # requests, a tenth
        self.missed = self.arrived[:]  # … and those that came while it was down
        self.created_at = array("d")  # by the task's number, and so are these
        self.leased_at = array("d")
        self.leases = bytearray()  # how many there were
        self.answers = bytearray()

    # ---- what miners ask --------------------------------------------------------------------------

    def request(self, now: float, miner: Miner, wait: float) -> Answer:
        """HELD means that the answer comes later, by `miner.hear`."""
        self.arrived[int(now * TENTHS)] += 1
        if miner in self._leases:
            return RUNNING
        if self._waiting:
            return self._lease(now, miner)
        if wait >= 1.0:
            until = now + int(wait)
            self._held[miner] = until
            self._order.append((miner, until))
            self._agenda.at(until, self._let_go, miner)
            return HELD
        return NOTHING

    def submit(self, now: float, miner: Miner) -> None:
        self.arrived[int(now * TENTHS)] += 1
        self.answers[self._leases.pop(miner).number] += 1

    def miss(self, now: float) -> None:
        """A request that came while it was down."""
        self.missed[int(now * TENTHS)] += 1

    def _lease(self, now: float, miner: Miner) -> Task:
        task = self._leases[miner] = self._waiting.popleft()
        self.leased_at[task.number] = now
        self.leases[task.number] += 1
        return task

    def _let_go(self, now: float, miner: Miner) -> None:
        if self._held.get(miner) == now:
            del self._held[miner]
            miner.hear(now, NOTHING, waited=True)

    # ---- what else happens ------------------------------------------------------------------------

    def create(self, now: float) -> None:
        """A consumer creates a task; the request that was held longest gets it."""
        if self.outage is not None:
            return
        self._waiting.append(Task(len(self.leases)))
        self.created_at.append(now)
        self.leased_at.append(float("nan"))
        self.leases.append(0)
        self.answers.append(0)
        while self._waiting and self._order:
            miner, until = self._order.popleft()
            if self._held.get(miner) == until:
                del self._held[miner]
                miner.hear(now, self._lease(now, miner), waited=True)

    def go_down(self, now: float, outage: Outage) -> None:
        self.outage = outage
        held = [miner for miner, until in self._order if self._held.get(miner) == until]
        self._held.clear()
        self._order.clear()
        for miner in held:
            miner.cut(now, outage.kind)
        self._agenda.at(outage.ends, self._come_up, None)

    def _come_up(self, _now: float, _about: None) -> None:
        self.outage = None
