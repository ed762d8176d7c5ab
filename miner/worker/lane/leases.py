"""The desk: what this miner id holds at the sequencer, and every request that is made about it.

One request is under way at a time, so a reply is read against the holds that it was about. The desk promises that
every lease which arrives is in the journal before anybody works on it, and that a task which the sequencer names but
nobody here knows gets an answer. It does no work on a task itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import structlog

from miner.sequencer import Reply, Sequencer, Unauthorized
from miner.sequencer.outbox import Outbox
from miner.task import policy
from miner.task.errors import MachineFault, Retryable
from miner.task.journal import Entry, Journal
from miner.task.policy import Allowance, Hold
from miner.task.stages import Job, Lease, Outcome, Value
from miner.telemetry import metrics
from miner.worker.lane import task_log

log = structlog.get_logger()

MOST_UNANSWERED = 16  # outcomes in the outbox beyond which no stranger gets one
UNKNOWN_TASK = "the miner lost this task in a restart before it could start; please create it again"
DROPPED_TASK = "the miner had stopped this task, since the sequencer no longer named it; please create it again"


@dataclass(slots=True, kw_only=True)
class Held:
    """A task in hand. `gone` is set when the sequencer took it away; `answering` once its outcome is known."""

    lease: Lease
    hold: Hold
    gone: threading.Event = field(default_factory=threading.Event)
    answering: bool = False
    workflow: str = ""  # its name, once the task was checked
    attempts: int = 0  # renders begun
    prompted_at: float = 0.0  # Unix seconds when its prompt stood in ComfyUI's queue
    rendered_at: float = 0.0  # … and when ComfyUI was done with it
    rendered_in: float = 0.0  # seconds that ComfyUI took
    size: int | None = None  # bytes of the result
    seed: Value | None = None  # for the log; drawn here where the task named none
    ignored: tuple[str, ...] = ()  # the task's parameters that its workflow does not know


class Desk:
    """Thread-safe. Only `ask` and the answers block, for a request at most."""

    def __init__(
        self,
        *,
        miner_id: str,
        sequencer: Sequencer,
        journal: Journal,
        outbox: Outbox,
        prefetch: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.miner_id = miner_id
        self._sequencer = sequencer
        self._journal = journal
        self._outbox = outbox
        self._prefetch = prefetch
        self._clock = clock
        self._asking = threading.Lock()
        self._changed = threading.Condition()
        self.version = 0  # counts what `pause` wakes for
        self.wants_more = True  # False: paused by the operator, so no request offers a workflow
        self._held: dict[str, Held] = {}
        self._work: deque[Lease | Job] = deque()
        self._closed_at: dict[str, float] = {}
        self._allowance = Allowance()
        self.asked_at = 0.0  # when the last request left
        self.answered_at = 0.0  # when the sequencer last gave a reply that it should

    # ---- asking -----------------------------------------------------------------------------------

    def ask(self, workflow_ids: Collection[str], *, wait: float = 0.0) -> Reply:
        """One request to the sequencer. What it leases is put to the work; gives the reply. Raises Retryable."""
        with self._asking:
            with self._changed:
                about = {t: h for t, h in self._held.items() if not h.answering}
                held = len(self._held)
            self.asked_at = asked_at = self._clock()
            reply = self._request(workflow_ids if self.wants_more else (), wait)
            self.answered_at = self._clock()
            self._settle_holds(about, reply)
            self._allowance = policy.learn(
                self._allowance,
                held=held,
                running=reply.running in self._held,
                leased=reply.lease is not None,
                now=self._clock(),
            )
            if reply.lease is not None:
                self._take(reply.lease)
            elif reply.running is not None and reply.running not in self._held:
                self._answer_stranger(reply.running, asked_at)
            return reply

    def _request(self, workflow_ids: Collection[str], wait: float) -> Reply:
        try:
            reply = self._sequencer.request(self.miner_id, workflow_ids, wait=wait)
        except Retryable as error:
            metrics.LEASE_REQUESTS.labels("refused" if isinstance(error, Unauthorized) else "error").inc()
            raise
        metrics.LEASE_REQUESTS.labels("task" if reply.lease else "running" if reply.running else "nothing").inc()
        return reply

    def want_more(self, wanted: bool) -> None:
        """Whether to take new tasks; what is in hand goes on all the same."""
        with self._changed:
            self.wants_more = wanted
            self._notify()

    def _settle_holds(self, about: dict[str, Held], reply: Reply) -> None:
        named = reply.running or (reply.lease.task_id if reply.lease else None)
        holds = policy.observe([h.hold for h in about.values()], running=named, canceled=reply.canceled)
        with self._changed:
            for hold in holds:
                held = about[hold.task_id]
                held.hold = hold
                if hold.taken_away and not held.answering and not held.gone.is_set():
                    log.info("task_taken_away", task_id=hold.task_id, next="stopping it")
                    held.gone.set()

    def _take(self, lease: Lease) -> None:
        """A lease has arrived. One that was answered before is wanted anew, with a new place for its result."""
        if (held := self._held.get(lease.task_id)) is not None:
            self._take_again(held, lease)
            return
        if self._outbox.has(self.miner_id, lease.task_id):  # a second answer would contradict the first
            self._outbox.nudge()
            return
        try:
            self._journal.leased(self.miner_id, lease)
        except MachineFault as fault:
            log.error("lease_not_recorded", task_id=lease.task_id, reason=fault.message, next="working on it anyway")
        log.debug("task_step", task_id=lease.task_id, step="leased")
        self.hold(lease)
        self.put(lease)

    def _take_again(self, held: Held, lease: Lease) -> None:
        """It was given up for lost, or this is the sequencer's way of saying `running`: the work on it goes on, and its
        result goes to the new place."""
        if held.answering or lease.target == held.lease.target:
            return
        held.lease = replace(lease, leased_at=held.lease.leased_at)
        try:
            self._journal.leased_again(self.miner_id, held.lease)
        except MachineFault as fault:
            log.error("lease_not_recorded", task_id=lease.task_id, reason=fault.message, next="working on it anyway")

    def _known(self, task_id: str) -> Entry | None:
        try:
            return self._journal.get(self.miner_id, task_id)
        except MachineFault as fault:
            log.error("journal_not_read", task_id=task_id, reason=fault.message, next="taking it for unknown")
            return None

    def _answer_stranger(self, task_id: str, asked_at: float) -> None:
        """The sequencer says `running` for a task that is not in hand."""
        if self._outbox.has(self.miner_id, task_id):
            self._outbox.nudge()
            return
        if self._closed_at.get(task_id, 0.0) >= asked_at:
            return  # it was acknowledged while this request was under way
        if self._outbox.depth >= MOST_UNANSWERED:
            return  # no honest sequencer has this many of ours; what it names now it will name again
        known = self._known(task_id)
        if known is not None and known.outcome is not None and known.verdict != "refused":
            outcome = known.outcome
        else:
            outcome = Outcome(task_id=task_id, success=False, msg=UNKNOWN_TASK if known is None else DROPPED_TASK)
        log.warning("unknown_task_running", task_id=task_id, next=f"answering it: {outcome.msg or 'its result'}")
        self._outbox.answer(self.miner_id, outcome, self.release)

    # ---- what is in hand --------------------------------------------------------------------------

    def hold(self, lease: Lease, *, answering: bool = False) -> Held:
        held = Held(lease=lease, hold=Hold(task_id=lease.task_id), answering=answering)
        with self._changed:
            self._held[lease.task_id] = held
            self._notify()
        return held

    def get(self, task_id: str) -> Held:
        return self._held[task_id]

    def answer(self, outcome: Outcome) -> None:
        """The outcome of a task in hand is known: it is the outbox's from here."""
        with self._changed:
            held = self._held[outcome.task_id]
            held.answering = True
        facts = task_log.facts_of(held, now=self._clock())
        self._outbox.answer(self.miner_id, outcome, self.release, facts=facts)
        task_log.tell(held, outcome, facts)

    def drop(self, task_id: str) -> None:
        """The task was taken away: nothing is owed."""
        try:
            self._journal.closed(self.miner_id, task_id, "taken away")
        except MachineFault as fault:
            log.error("step_not_recorded", task_id=task_id, reason=fault.message, next="dropping it all the same")
        task_log.tell_lost(self._held[task_id], now=self._clock())
        self.release(task_id)

    def release(self, task_id: str) -> None:
        with self._changed:
            self._held.pop(task_id, None)
            self._closed_at = {t: at for t, at in self._closed_at.items() if self._clock() - at < 60.0}
            self._closed_at[task_id] = self._clock()
            self._notify()

    @property
    def in_hand(self) -> tuple[Held, ...]:
        """The tasks in hand, in the order in which they came; each may change while it is looked at."""
        with self._changed:
            return tuple(self._held.values())

    @property
    def holds(self) -> int:
        return len(self._held)

    @property
    def busy(self) -> bool:
        """Whether a task in hand still lacks its outcome."""
        with self._changed:
            return any(not held.answering for held in self._held.values())

    @property
    def answering(self) -> bool:
        """Whether an answer is on its way, after which the sequencer has room for another task."""
        with self._changed:
            return any(held.answering for held in self._held.values())

    @property
    def workflows(self) -> tuple[str, ...]:
        """The workflows of the tasks in hand, as far as they are known."""
        with self._changed:
            return tuple(held.workflow for held in self._held.values() if held.workflow)

    @property
    def one_at_a_time(self) -> bool:
        """The sequencer has shown that it gives no second task, so asking with workflows is a mere heartbeat."""
        return self._allowance.limit == 1

    def has_room(self) -> bool:
        return len(self._held) < self._allowance.now(prefetch=self._prefetch, now=self._clock())

    # ---- what is to be done -----------------------------------------------------------------------

    def put(self, work: Lease | Job, *, first: bool = False) -> None:
        with self._changed:
            if first:
                self._work.appendleft(work)
            else:
                self._work.append(work)
            self._notify()

    def pop(self) -> Lease | Job | None:
        with self._changed:
            return self._work.popleft() if self._work else None

    def pause(self, seconds: float, *, since: int) -> None:
        """Wait until a task comes or ends, `wake` is called, or `seconds` are over.

        `since` is the `version` that the caller acted upon: a change after it ends the wait at once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.version != since, timeout=seconds)

    def wake(self) -> None:
        with self._changed:
            self._notify()

    def _notify(self) -> None:
        self.version += 1
        self._changed.notify_all()
