"""Recovery after a restart: restores or answers the tasks of earlier runs, as `policy.after_restart` decides.

Restored tasks continue in their loops; the render loop finds out whether ComfyUI still has a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import structlog

from miner.task import policy
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Answered, Outcome, Prompted, Rendered, TaskInHand, Uploaded
from miner.telemetry import clock
from miner.worker.lane.answers import Answers, success

log = structlog.get_logger()

WORKFLOW_GONE = "this miner no longer has the task's workflow; please create it again"
TIME_OVER = "the task's time ran out while the miner was restarting"
CRASHED = f"this miner crashed {policy.MAX_CRASHES} times during the task; please create it again"
_REASONS = {"workflow missing": WORKFLOW_GONE, "too late": TIME_OVER, "crashed": CRASHED}


@dataclass(slots=True, kw_only=True)
class Recover:
    """One lane's recovery."""

    ledger: Ledger
    journal: Journal
    answers: Answers
    workflows: Collection[str]  # names in this miner's library
    clock: Callable[[], float] = clock.now

    def run(self) -> None:
        """Restore or answer every task; blocks for one request per answer."""
        decided = [(task, self._action(task)) for task in self.journal.unfinished(self.ledger.miner_id)]
        for step in (self._restore, self._answer):  # all are restored first, for their heartbeats and loops
            for task, action in decided:
                with self.answers.guard(task.task_id, loop="prepare"):
                    step(task, action)

    def _restore(self, task: TaskInHand, action: str) -> None:
        log.info("task_picked_up", task_id=task.task_id, step=task.stage.name, next=action)
        if isinstance(task.stage, Prompted):  # even if given up: the render loop cancels it in ComfyUI
            self.ledger.restore(replace(self._as_left(task), given_up=_REASONS.get(action, "")))
        elif action == "continue":
            self.ledger.restore(self._as_left(task))

    def _answer(self, task: TaskInHand, action: str) -> None:
        if isinstance(task.stage, Answered):
            self.answers.resume(task, task.stage)
        elif isinstance(task.stage, Uploaded):
            self.answers.answer(success(task.task_id, task.stage), left=task)
        elif action != "continue" and not isinstance(task.stage, Prompted):
            self.answers.answer(Outcome(task_id=task.task_id, success=False, msg=_REASONS[action]), left=task)

    def _action(self, task: TaskInHand) -> policy.Resume | str:
        action = policy.after_restart(task, now=self.clock())
        gone = task.job is not None and task.job.workflow not in self.workflows
        return "workflow missing" if action == "continue" and gone else action

    def _as_left(self, task: TaskInHand) -> TaskInHand:
        now = self.clock()
        if isinstance(task.stage, Prompted):  # the render loop finds out if ComfyUI has it
            return replace(task, resumed=True, queued_at=now, since=now)
        if isinstance(task.stage, Rendered):
            return replace(task, rendered_at=now, rendered_in=task.stage.inference_latency, since=now)
        return replace(task, since=now)
