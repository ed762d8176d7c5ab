"""The gate: all requests for tasks to the sequencer, one at a time.

So each reply is compared with the tasks in hand at its request, and no two requests lease past the limit. Leases are in
the ledger, and so in the journal, before any work starts. Running tasks that are unknown here are answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import structlog

from miner.sequencer import Reply, Sequencer, Unauthorized
from miner.task import policy
from miner.task.errors import MachineFault, Retryable
from miner.task.journal import Journal, Known
from miner.task.ledger import Ledger
from miner.task.policy import Allowance
from miner.task.stages import Lease, Outcome, TaskInHand
from miner.telemetry import clock, metrics
from miner.worker.lane.answers import Answers
from miner.worker.lane.shutdown import SHUTTING_DOWN, Shutdown

log = structlog.get_logger()

MAX_UNACKNOWLEDGED = 16  # above, unknown tasks are not answered
UNKNOWN_TASK = "the miner lost this task in a restart before it could start; please create it again"
LOST_REPLY = "the reply that handed this task out did not reach the miner; please create it again"
DROPPED_TASK = "the miner stopped this task when the sequencer no longer named it; please create it again"


class Gate:
    """Thread-safe. Only `ask` and `close` block, for a request at most."""

    def __init__(
        self,
        *,
        sequencer: Sequencer,
        ledger: Ledger,
        journal: Journal,
        answers: Answers,
        shutdown: Shutdown,
        prefetch: int,
        standing: Callable[[Collection[TaskInHand]], Sequence[Mapping[str, Any]]] = lambda _tasks: (),
        clock: Callable[[], float] = clock.now,
    ) -> None:
        """`standing`: what to tell of how far tasks are."""
        self.leasing = True  # False: paused, so requests advertise no workflows
        self.asked_at = 0.0  # of the last request
        self.answered_at = 0.0  # of the last valid reply
        self._sequencer = sequencer
        self._ledger = ledger
        self._journal = journal
        self._answers = answers
        self._shutdown = shutdown
        self._prefetch = prefetch
        self._standing = standing
        self._clock = clock
        self._asking = threading.Lock()
        self._closed = False
        self._allowance = Allowance()
        self._reply_lost = False  # in this run: the request may have leased a task
        self._names_one = True  # silence about a task counts while another is named

    def ask(self, workflow_ids: Collection[str], *, wait: float = 0.0) -> Reply:
        """Send one request, put a lease into the ledger, return the reply. Raises Retryable.

        Advertises nothing while paused, draining or holding 1 + `prefetch` tasks.
        """
        ledger = self._ledger
        with self._asking:
            moment = ledger.closings  # before what is in hand, so that nothing closes unseen
            about, held = [task for task in ledger.view() if not task.answered], ledger.held
            self.asked_at = self._clock()
            may_lease = self.leasing and self._shutdown.state == "running" and held <= self._prefetch
            told = self._standing(about)
            reply = self._request(workflow_ids, wait, told) if may_lease else self._request((), 0.0, told)
            self.answered_at = self._clock()
            named = reply.running or (reply.lease.task_id if reply.lease else None)
            if self._is_about_another(reply, named, about, moment):
                about = [task for task in about if task.task_id in reply.canceled]
            ledger.apply_reply(about, named=named, canceled=reply.canceled, eclipses=self._names_one)
            self._allowance = policy.learn(
                self._allowance,
                held=held,
                running=reply.running is not None and ledger.get(reply.running) is not None,
                leased=reply.lease is not None,
                now=self._clock(),
            )
            if reply.lease is not None:
                self._take(reply.lease, moment)
            elif reply.running is not None and ledger.get(reply.running) is None:
                self._answer_unknown(reply.running, moment)
            return reply

    def close(self) -> bool:
        """No loop takes a lease any more: from now on one is answered at once, which only a heartbeat can bring.

        Waits for a request under way; returns False if that has brought one.
        """
        with self._asking:
            self._closed = not self._ledger.busy
            return self._closed

    def set_leasing(self, wanted: bool) -> None:
        """Lease new tasks, or not; tasks in hand continue."""
        self.leasing = wanted
        self._ledger.wake()

    def ask_anew(self) -> None:
        """End a held request, so that the next one advertises what this lane can do now."""
        self._sequencer.end_wait(self._ledger.miner_id)
        self._ledger.wake()

    def may_hold_more(self) -> bool:
        return self._ledger.held < self._allowance.now(prefetch=self._prefetch, now=self._clock())

    @property
    def one_at_a_time(self) -> bool:
        """Whether the sequencer leases no second task, so that a request with workflows is only a heartbeat."""
        return self._allowance.limit == 1

    # ---- replies ----------------------------------------------------------------------------------

    def _request(self, workflow_ids: Collection[str], wait: float, told: Sequence[Mapping[str, Any]]) -> Reply:
        try:
            reply = self._sequencer.request(self._ledger.miner_id, workflow_ids, wait=wait, progress=told)
        except Retryable as error:
            self._reply_lost = self._reply_lost or not isinstance(error, Unauthorized)
            metrics.LEASE_REQUESTS.labels("refused" if isinstance(error, Unauthorized) else "error").inc()
            raise
        metrics.LEASE_REQUESTS.labels("task" if reply.lease else "running" if reply.running else "nothing").inc()
        return reply

    def _is_about_another(self, reply: Reply, named: str | None, about: Collection[TaskInHand], moment: int) -> bool:
        """Whether it says nothing of the tasks in hand: it leases a new one, or names one that is answered already."""
        if named is None or any(task.task_id == named for task in about):
            return False
        known = self._ledger.get(named) is not None or bool(self._ledger.closed_since(named, moment))
        return known or reply.lease is not None

    def _take(self, lease: Lease, moment: int) -> None:
        """Take a lease. For a task in hand, the sequencer thought it lost, or means `running`."""
        task = self._ledger.get(lease.task_id)
        if task is None and self._ledger.closed_since(lease.task_id, moment) == "acknowledged":
            log.info("stale_lease", task_id=lease.task_id, next="nothing: its answer was accepted during this request")
        elif task is None:
            self._ledger.take(lease)
            if self._closed:
                self._answers.fail(lease.task_id, SHUTTING_DOWN)
            log.debug("task_step", task_id=lease.task_id, step="leased")
        elif task.answered:  # submit that answer, not a second one
            self._answers.nudge()
        elif not lease.fault:
            self._ledger.lease_again(lease)

    def _answer_unknown(self, task_id: str, moment: int) -> None:
        """Answer a `running` task that is not in hand."""
        if self._ledger.closed_since(task_id, moment):
            return  # during this request
        if self._answers.depth >= MAX_UNACKNOWLEDGED:
            return  # the sequencer will name it again
        known = self._known(task_id)
        if known is not None and known.outcome is not None and known.verdict != "refused":
            outcome = known.outcome
        else:
            lost = LOST_REPLY if self._reply_lost else UNKNOWN_TASK
            outcome = Outcome(task_id=task_id, success=False, msg=lost if known is None else DROPPED_TASK)
            # One that runs after all was dropped since another was named: this sequencer has an order of its own.
            self._names_one = self._names_one and known is None
        log.warning("unknown_task_running", task_id=task_id, next=f"answering it: {outcome.msg or 'its result'}")
        self._answers.answer_unknown(outcome)

    def _known(self, task_id: str) -> Known | None:
        try:
            return self._journal.known(self._ledger.miner_id, task_id)
        except MachineFault as fault:
            log.error("journal_not_read", task_id=task_id, reason=fault.message, next="treating it as unknown")
            return None
