"""After a restart: what a dead miner left behind is put back where it was.

The decision is `policy.after_restart`'s; this looks up what it needs to know, and carries it out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from miner.comfy.client import ComfyDown
from miner.comfy.follow import PromptLost, look
from miner.comfy.host import ComfyHost
from miner.sequencer.outbox import Outbox
from miner.task import policy
from miner.task.journal import Entry, Journal
from miner.task.stages import Outcome, Prompt, Rendered
from miner.worker.lane.deliver import success
from miner.worker.lane.leases import Desk
from miner.worker.lane.prepare import deadline_of

log = structlog.get_logger()

WORKFLOW_GONE = "this miner no longer has the task's workflow; please create it again"
RECORD_LOST = "the miner lost what it knew of this task in a restart; please create it again"
TIME_OVER = "the task's time ran out while the miner was restarting"


@dataclass(slots=True, kw_only=True)
class Recover:
    """One lane's recovery; `run` blocks until ComfyUI is ready where a prompt was under way."""

    desk: Desk
    host: ComfyHost
    journal: Journal
    outbox: Outbox
    workflows: Collection[str]  # names of those that there are
    stop: threading.Event
    to_render: Callable[[Prompt], None]
    to_deliver: Callable[[Rendered], None]
    clock: Callable[[], float] = time.time

    def run(self) -> None:
        entries = self.journal.unfinished(self.desk.miner_id)
        for entry in entries:  # held first, so that the heartbeat speaks for all of them
            if entry.lease is not None:
                held = self.desk.hold(entry.lease, answering=entry.step in ("uploaded", "answered"))
                held.workflow = entry.workflow
        for entry in sorted(entries, key=lambda entry: entry.step == "prompted"):  # the others need no ComfyUI
            self._resume(entry)

    def _resume(self, entry: Entry) -> None:
        if entry.step is None:
            return
        lease, job = entry.lease, entry.job
        if lease is None and entry.outcome is None:
            outcome = Outcome(task_id=entry.task_id, success=False, msg=RECORD_LOST)
            self.outbox.answer(self.desk.miner_id, outcome, self.desk.release)
            return
        if job is not None and job.workflow not in self.workflows and entry.step not in ("uploaded", "answered"):
            self.desk.answer(Outcome(task_id=entry.task_id, success=False, msg=WORKFLOW_GONE))
            return
        work = job or lease
        deadline = deadline_of(work) if work is not None else float("inf")
        action = policy.after_restart(
            entry.step,
            whereabouts=self._whereabouts(entry, deadline) if entry.step == "prompted" else "nowhere",
            files_there=entry.rendered is not None,
            now=self.clock(),
            deadline=deadline,
        )
        log.info("task_picked_up", task_id=entry.task_id, step=entry.step, next=action)
        if action == "submit" and entry.outcome is not None:
            self.outbox.resume(self.desk.miner_id, entry.outcome, self.desk.release)
        elif action == "answer" and entry.uploaded is not None:
            self.desk.answer(success(entry.uploaded))
        elif action == "upload" and entry.rendered is not None:
            self.to_deliver(entry.rendered)
        elif action in ("follow", "collect") and job is not None:
            self.to_render(Prompt(job=job, prompt_id=entry.prompt_id, graph={}))
        elif action == "run" and work is not None:
            self.desk.put(work)
        else:
            self.desk.answer(Outcome(task_id=entry.task_id, success=False, msg=TIME_OVER))

    def _whereabouts(self, entry: Entry, deadline: float) -> policy.Whereabouts:
        """Where ComfyUI has the prompt; blocks until it can say, or the task's time is over."""
        while not self.stop.is_set() and self.clock() < deadline:
            if not self.host.ready.wait(0.25):
                continue
            try:
                return "history" if look(self.host.client, entry.prompt_id) else "queue"
            except PromptLost:
                return "nowhere"
            except ComfyDown as down:
                self.host.suspect(down.message)
        return "queue"  # who follows it gives it up at once, and ends it in ComfyUI when that is there
