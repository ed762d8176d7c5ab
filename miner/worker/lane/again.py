"""What becomes of a task that this machine spoiled: prepared again, or answered as this miner's fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from miner.task.blame import may_try_again, told
from miner.task.errors import MachineFault
from miner.task.ledger import Ledger
from miner.task.prompt_ids import new_prompt_id
from miner.task.stages import Job, Leased, Prepared, TaskInHand
from miner.telemetry import clock, metrics
from miner.worker.lane.answers import Answers
from miner.worker.lane.capabilities import Capabilities

log = structlog.get_logger()

NOT_READY = "the task's time ran out before this miner's renderer was ready; please create it again"
AWAY = "this miner's renderer is away; please create the task again"


@dataclass(slots=True, kw_only=True)
class Again:
    """One lane's, for all its loops."""

    ledger: Ledger
    answers: Answers
    capabilities: Capabilities
    clock: Callable[[], float] = clock.now

    def spoiled(self, task: TaskInHand, job: Job, fault: MachineFault) -> None:
        """Count the fault on the workflow's health; render the task again, unless that happened too often."""
        larger = self.capabilities.exceeds_defaults(job)
        self.capabilities.pauses.failed(
            job.workflow, fault, task_id=task.task_id, attempts=task.attempts, larger=larger
        )
        what = {"task_id": task.task_id, "fault": fault.fault, "reason": fault.message, "hint": fault.hint}
        can = not isinstance(task.stage, (Leased, Prepared)) and self.clock() < job.deadline
        if can and may_try_again(fault.fault, attempts=task.attempts):
            log.warning("render_spoiled", **what, next="rendering again")
            metrics.RETRIES.labels("render").inc()
            self.anew(task, job)
            return
        log.error("render_failed", **what, next="answering it")
        self.answers.fail(task.task_id, fault.told or told(fault.fault))

    def anew(self, task: TaskInHand, job: Job) -> None:
        """Prepare the task again, under a new prompt id."""
        self.ledger.advance(task.task_id, Prepared(job=job, prompt_id=new_prompt_id(self.ledger.miner_id)))
