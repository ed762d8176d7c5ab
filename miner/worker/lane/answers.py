"""Answers and closes tasks, for all loops: ledger, outbox and log. Nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from miner.sequencer.outbox import Outbox
from miner.task.ledger import Ledger
from miner.task.stages import Answered, Closed, Outcome, TaskInHand, Uploaded
from miner.telemetry import clock, metrics
from miner.worker.lane import task_log

log = structlog.get_logger()

BUG = "this miner crashed on the task (a bug in the miner); please create it again"


@dataclass(slots=True, kw_only=True)
class Answers:
    """One lane's. Thread-safe; an answer blocks for one request at most."""

    ledger: Ledger
    outbox: Outbox
    clock: Callable[[], float] = clock.now

    def answer(self, outcome: Outcome, *, left: TaskInHand | None = None) -> None:
        """Answer a task in hand, or `left`, a task from an earlier run."""
        task = left or self.ledger.get(outcome.task_id)
        if task is None:
            raise KeyError(outcome.task_id)
        facts = task_log.facts_of(task, now=self.clock())
        stage = Answered(outcome=outcome, facts=facts, told=task_log.told(outcome.msg))
        if left is not None:
            self.ledger.restore(left, then=stage)
        else:
            self.ledger.advance(outcome.task_id, stage)
        self._submit(outcome)
        task_log.log_end(task, outcome, facts)

    def fail(self, task_id: str, msg: str) -> None:
        """Answer with a failure; `msg` is for the consumer."""
        self.answer(Outcome(task_id=task_id, success=False, msg=msg))

    def lost(self, task_id: str) -> None:
        """Close a task that the sequencer took away."""
        if self.ledger.get(task_id) is not None:
            task_log.log_lost(self.ledger.advance(task_id, Closed(verdict="taken away")), now=self.clock())

    @contextmanager
    def guard(self, task_id: str, *, loop: str) -> Iterator[None]:
        """An unexpected exception in the block ends this task, not the lane."""
        try:
            yield
        except Exception:  # noqa: BLE001  # logged with its traceback
            self._crashed(task_id, loop)

    def _crashed(self, task_id: str, loop: str) -> None:
        metrics.TASK_CRASHES.labels(loop).inc()
        log.exception("task_crashed", task_id=task_id, loop=loop, next="answering it; please report this bug")
        task = self.ledger.get(task_id)
        if task is not None and not task.answered:
            self.fail(task_id, BUG)

    def answer_unknown(self, outcome: Outcome) -> None:
        """Answer a task that is not in hand."""
        self.ledger.answer_unknown(outcome)
        self._submit(outcome)

    def resume(self, task: TaskInHand, answered: Answered) -> None:
        """Submit an answer from an earlier run again."""
        self.ledger.restore(task)
        self._submit(answered.outcome)

    def nudge(self) -> None:
        """Submit all answers now: the sequencer is up."""
        self.outbox.nudge()

    @property
    def depth(self) -> int:
        """The number of unacknowledged answers."""
        return self.outbox.depth

    def _submit(self, outcome: Outcome) -> None:
        self.outbox.submit(self.ledger.miner_id, outcome, self._closed)

    def _closed(self, task_id: str, verdict: str) -> None:
        task = self.ledger.get(task_id)
        if task is not None and task.answered:
            self.ledger.advance(task_id, Closed(verdict=verdict))


def success(task_id: str, uploaded: Uploaded) -> Outcome:
    """The answer to an uploaded task."""
    return Outcome(
        task_id=task_id,
        success=True,
        result=uploaded.key,
        inference_latency=uploaded.inference_latency,
        upload_latency=uploaded.upload_latency,
    )
