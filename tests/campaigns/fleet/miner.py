"""The model of one miner: what its prepare loop, heartbeat and outbox say to the sequencer, and when.

Every decision is the worker's own function, called as its loops call it (in miner/worker/lane: poll.py, heartbeat.py,
leases.py; in miner/sequencer: outbox.py). What a lane does between two requests is left out: it takes no time here,
but for the rendering. It has one workflow; one that has several asks once more a task, for what is warm.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from miner.task.policy import Allowance, Average
from miner.task.stages import Hold
from tests.campaigns.fleet.agenda import Agenda, Do
from tests.campaigns.fleet.decisions import Numbers, Policy
from tests.campaigns.fleet.sequencer import HELD, NOTHING, RUNNING, Answer, Kind, Sequencer, Task

TRIP = 0.04  # seconds that a message takes one way
WORKFLOW, TIMEOUT = "flux-lora", 300.0  # seconds, of its manifest
UNKNOWN, NO_TASK = Average(), Hold(task_id="")
NEW, LEARNED = Allowance(), Allowance(limit=1, learned_at=0.0)
SYN_AGAIN = (1.0, 3.0, 7.0)  # seconds after which Linux knocks again at a host that does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the miners of a fleet share."""

    agenda: Agenda
    sequencer: Sequencer
    rng: random.Random
    policy: Policy
    numbers: Numbers
    render: Callable[[], float]  # draws the seconds that a task takes
    back_after: list[float] = field(default_factory=list)  # seconds after an outage until each was back


class Miner:
    """An entry in the agenda that is about an older `_turn` or task than the present one has been overtaken."""

    __slots__ = (
        "_allowance", "_asked_at", "_attempts", "_average", "_connected", "_failures", "_heard", "_hold", "_leased_at",
        "_lost_until", "_task", "_turn", "_world",
    )  # fmt: skip

    def __init__(self, world: Surroundings, *, settled: bool) -> None:
        """A settled one was heard by the sequencer before, and knows that it gives one task at a time."""
        self._world = world
        self._turn = 0
        self._heard = settled  # its last request was answered
        self._failures = 0  # of requests for a task, in a row
        self._attempts = 0  # to submit the outcome in hand
        self._allowance = LEARNED if settled else NEW
        self._average = UNKNOWN
        self._task: Task | None = None
        self._hold = NO_TASK
        self._asked_at = self._leased_at = 0.0
        self._connected = True
        self._lost_until: float | None = None  # the end of the outage that it has noticed

    # ---- asking -----------------------------------------------------------------------------------

    def ask(self, when: float) -> None:
        """The next request leaves then, instead of any that was planned."""
        self._turn += 1
        self._world.agenda.at(when + TRIP, self._request, self._turn)

    def _request(self, now: float, turn: int) -> None:
        if turn != self._turn:
            return
        world = self._world
        wait = world.numbers.wait if self._task is None and self._heard else 0.0
        self._asked_at = now - TRIP
        up = world.sequencer.outage is None and self._lost_until is None  # asked here for speed
        if up or self._arrives(now, self._request, self._failed, turn, timeout=world.numbers.timeout + wait):
            answer = world.sequencer.request(now, self, wait)
            if answer is not HELD:
                self.hear(now, answer, waited=False)

    def hear(self, now: float, answer: Answer, *, waited: bool) -> None:
        """The answer to a request; it leaves the sequencer `now`."""
        now += TRIP
        first, back = not self._heard, self._failures > 0
        self._failures, self._heard = 0, True
        if isinstance(answer, Task):
            self._take(now, answer)
        elif answer is RUNNING:
            self._hear_running(now)
        else:
            world = self._world
            numbers = world.numbers
            early = waited and now - self._asked_at < numbers.wait - numbers.early
            if early or (back and self._task is None and numbers.wait):
                pause = world.policy.return_delay(numbers.wait, rng=world.rng)
            else:
                pause = 0.0 if first or waited else world.policy.idle_delay(numbers.poll_interval, rng=world.rng)
            self.ask(now + pause)

    def cut(self, now: float, kind: Kind) -> None:
        """The sequencer goes down while it holds a request of this miner."""
        world = self._world
        self._lost_until = world.sequencer.outage.ends
        if kind == "answers first":
            self.hear(now, NOTHING, waited=True)
        elif kind == "refuses":
            world.agenda.at(now + TRIP, self._failed, self._turn)
        else:
            self._connected = False
            gives_up = self._asked_at + world.numbers.timeout + world.numbers.wait
            world.agenda.at(gives_up, self._failed, self._turn)

    def _failed(self, now: float, turn: int) -> None:
        if turn == self._turn:
            world = self._world
            pace = world.numbers.wait if self._task is None else 0.0
            self._failures += 1
            self._heard = False
            pause = world.policy.backoff(self._failures, rng=world.rng, base=max(world.numbers.first_pause, pace))
            self.ask(now + pause)

    # ---- a task -----------------------------------------------------------------------------------

    def _take(self, now: float, task: Task) -> None:
        """Render it, show that it lives, and ask once more: the sequencer may allow a second one."""
        world = self._world
        self._task = task
        self._hold = Hold(task_id=str(task.number))
        self._leased_at = now
        seconds = world.render()
        world.agenda.at(now + seconds + TRIP, self._submit, task)
        self._plan_beat(now, task)
        if self._wants_another(now):
            self.ask(now)
        self._average = self._average.after(seconds)

    def _wants_another(self, now: float) -> bool:
        """Whether it asks for a task to take ahead: there is room for one, and it would end in time."""
        world, average = self._world, self._average.value
        if average is None or self._allowance.now(prefetch=world.numbers.prefetch, now=now) < 2:
            return False
        known, limits = {WORKFLOW: average}, {WORKFLOW: TIMEOUT}
        return bool(world.policy.prefetchable((WORKFLOW,), seconds=known, timeouts=limits, busy_for=average))

    def _hear_running(self, now: float) -> None:
        """The rule is learned and the lease confirmed. The prepare loop pauses until the task is answered."""
        world = self._world
        (self._hold,) = world.policy.observe((self._hold,), running=self._hold.task_id, canceled=())
        if self._hold.taken_away:
            raise AssertionError(f"task {self._hold.task_id} was dropped, though the sequencer never took it away")
        self._allowance = world.policy.learn(self._allowance, held=1, running=True, leased=False, now=now)

    @property
    def _beat_due(self) -> float:
        numbers = self._world.numbers
        if self._leased_at >= self._asked_at:
            return self._leased_at + numbers.first_beat
        return self._asked_at + numbers.heartbeat

    def _plan_beat(self, now: float, task: Task) -> None:
        """`first_beat` seconds after the lease, then once the last request is `heartbeat` seconds old."""
        self._world.agenda.at(max(self._beat_due, now) + TRIP, self._beat, task)

    def _beat(self, now: float, task: Task) -> None:
        if task is not self._task:
            return
        if now - TRIP < self._beat_due:  # it asked for another reason meanwhile
            self._plan_beat(now, task)
            return
        self._asked_at = now - TRIP
        if self._arrives(now, self._beat, self._plan_beat_again, task, timeout=self._world.numbers.timeout):
            self._world.sequencer.request(now, self, 0.0)
            self._hear_running(now + TRIP)
            self._plan_beat(now, task)

    def _plan_beat_again(self, now: float, task: Task) -> None:
        if task is self._task:
            self._plan_beat(now, task)

    # ---- the outbox -------------------------------------------------------------------------------

    def _submit(self, now: float, task: Task) -> None:
        if self._arrives(now, self._submit, self._not_taken, task, timeout=self._world.numbers.timeout):
            self._world.sequencer.submit(now, self)
            self._attempts, self._task = 0, None
            self.ask(now + TRIP)

    def _not_taken(self, now: float, task: Task) -> None:
        self._attempts += 1
        pause = self._world.policy.backoff(self._attempts, rng=self._world.rng)
        self._world.agenda.at(now + pause + TRIP, self._submit, task)

    # ---- the network ------------------------------------------------------------------------------

    def _arrives(self, now: float, again: Do, failed: Do, about: object, *, timeout: float) -> bool:
        """Whether what was sent a trip ago finds the sequencer up. If not, it is written down when the miner notices
        that, or when it does get through."""
        world, outage = self._world, self._world.sequencer.outage
        if outage is None:
            self._connected = True
            if self._lost_until is not None:
                world.back_after.append(now - self._lost_until)
                self._lost_until = None
            return True
        world.sequencer.miss(now)
        self._lost_until = outage.ends
        sent = now - TRIP
        if outage.kind != "silent":
            world.agenda.at(now + TRIP, failed, about)
        elif self._connected:  # nothing comes back
            self._connected = False
            world.agenda.at(sent + timeout, failed, about)
        else:
            knocks = (sent + s for s in SYN_AGAIN if s < world.numbers.connect)
            heard = next((knock for knock in knocks if knock >= outage.ends), None)
            if heard is not None:
                world.agenda.at(heard + TRIP, again, about)
            else:
                world.agenda.at(sent + world.numbers.connect, failed, about)
        return False
