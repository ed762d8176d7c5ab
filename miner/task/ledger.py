"""The ledger: the tasks in hand of one miner id, and the only way on for each.

`advance` writes the journal first, then replaces the `TaskInHand`, then wakes who waits, under one lock. When nothing
is left to do for a task, every place that it used goes to the cleaner, whatever the way there was. `view` gives all
tasks, frozen; it waits for nobody, and is what the page, the metrics, the heartbeat and the prefetch read. The loops
have no other queue: each takes the first task at its stage. It does no work on a task, and asks nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from miner.task import policy
from miner.task.errors import MachineFault
from miner.task.journal import Journal
from miner.task.stages import (
    NEXT,
    Answered,
    Closed,
    Hold,
    Lease,
    Leased,
    Outcome,
    Places,
    Prepared,
    Prompted,
    Rendered,
    Stage,
    TaskInHand,
    Uploaded,
)

log = structlog.get_logger()

REMEMBER = 60.0  # seconds for which a closed task is known


class Ledger:
    """Thread-safe. What changes a stage blocks for the journal; the rest blocks for nothing."""

    def __init__(
        self,
        *,
        miner_id: str,
        journal: Journal,
        folder: Path,
        cleaner: Callable[[TaskInHand], None] = lambda _task: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: where each prompt's files are on their way, in a folder of its id. `cleaner` must not block."""
        self.miner_id = miner_id
        self.folder = folder
        self.version = 0  # counts what `wait` wakes for
        self.ended = False  # nothing comes in hand any more
        self.cleaner = cleaner
        self._journal = journal
        self._clock = clock
        self._changed = threading.Condition()
        self._tasks: Mapping[str, TaskInHand] = MappingProxyType({})  # replaced as a whole
        self._closed_at: dict[str, float] = {}
        self._unwritten: dict[str, TaskInHand] = {}  # closed ones that the disk did not take

    # ---- reading ----------------------------------------------------------------------------------

    def view(self) -> tuple[TaskInHand, ...]:
        """The tasks in hand, in the order in which they came."""
        return tuple(self._tasks.values())

    def get(self, task_id: str) -> TaskInHand | None:
        return self._tasks.get(task_id)

    def first(self, *kinds: type[Stage]) -> TaskInHand | None:
        """The first task at one of these stages, an earlier kind before a later one; a prompt once ComfyUI has it."""
        tasks = self.view()
        for kind in kinds:
            for task in sorted(tasks, key=lambda task: task.queued_at) if kind is Prompted else tasks:
                if isinstance(task.stage, kind) and (kind is not Prompted or task.queued_at):
                    return task
        return None

    @property
    def held(self) -> int:
        """How many tasks the sequencer has given to this miner."""
        return sum(not task.stranger for task in self.view())

    @property
    def busy(self) -> bool:
        """Whether a task in hand still lacks its outcome."""
        return any(not task.answered for task in self.view())

    @property
    def workflows(self) -> tuple[str, ...]:
        """The workflows of the tasks in hand, as far as they are known."""
        return tuple(task.workflow for task in self.view() if task.workflow)

    def closed_since(self, task_id: str, at: float) -> bool:
        """Whether the task was closed at `at` (Unix seconds) or later."""
        return self._closed_at.get(task_id, 0.0) >= at

    # ---- into hand and out of it ------------------------------------------------------------------

    def take(self, lease: Lease) -> TaskInHand:
        """A new task, at `Leased`."""
        task = TaskInHand(lease=lease, stage=Leased(), hold=Hold(task_id=lease.task_id), since=self._clock())
        with self._changed:
            self._write(task, lease=True)
            self._put(task)
        return task

    def restore(self, task: TaskInHand, *, then: Stage | None = None) -> TaskInHand:
        """A task as the journal has it, at once advanced to `then` where that is given."""
        with self._changed:
            if then is not None:
                return self._advance(task, then, {})
            self._put(task)
            if task.answered:
                self.cleaner(task)
            return task

    def answer_stranger(self, outcome: Outcome) -> TaskInHand:
        """A task that the sequencer names but nobody here knows is in hand from its answer on."""
        lease = Lease.unknown(outcome.task_id, at=self._clock())
        task = TaskInHand(lease=lease, stage=Leased(), hold=Hold(task_id=outcome.task_id), stranger=True)
        with self._changed:
            return self._advance(task, Answered(outcome=outcome), {})

    def leave(self, task_id: str) -> None:
        """Out of hand, and not closed: the journal has it, and the next start goes on with it."""
        with self._changed:
            self._drop(task_id)

    def end(self) -> None:
        """Nothing comes in hand any more: the loops may end."""
        with self._changed:
            self.ended = True
            self._notify()

    # ---- on its way -------------------------------------------------------------------------------

    def advance(self, task_id: str, stage: Stage, **facts: Any) -> TaskInHand:
        """Put the task to its next stage; `facts` are fields of `TaskInHand` that become known with it.

        Gives it as it is then. Raises KeyError for one that is not in hand, ValueError for a step that `NEXT` does not
        have: both are bugs of the caller. A disk that takes no record costs a repetition after a crash, not the task.
        """
        with self._changed:
            return self._advance(self._tasks[task_id], stage, facts)

    def note(self, task_id: str, **facts: Any) -> None:
        """Facts that are for people, or for this run alone: neither journal nor waking, but for `queued_at`."""
        with self._changed:
            if (task := self._tasks.get(task_id)) is not None:
                self._replace(replace(task, **facts))
                if "queued_at" in facts:
                    self._notify()

    def lease_again(self, lease: Lease) -> None:
        """The sequencer has sent a task in hand once more: its result goes to the new place."""
        with self._changed:
            task = self._tasks[lease.task_id]
            if task.answered or task.lease.target == lease.target:
                return
            task = replace(task, lease=replace(lease, leased_at=task.lease.leased_at))
            self._write(task, lease=True)
            self._replace(task)

    def hear(self, about: Collection[TaskInHand], *, named: str | None, canceled: Collection[str]) -> None:
        """A reply to a request that was made while the tasks `about` were in hand."""
        holds = policy.observe([task.hold for task in about], running=named, canceled=canceled)
        with self._changed:
            for hold in holds:
                task = self._tasks.get(hold.task_id)
                if task is None or task.answered:
                    continue
                if hold.taken_away and not task.taken_away:
                    log.info("task_taken_away", task_id=hold.task_id, next="stopping it")
                    self._notify()
                self._replace(replace(task, hold=hold))

    def cleaned(self, task_id: str) -> None:
        """Nothing of the task lies anywhere any more."""
        with self._changed:
            try:
                self._journal.cleaned(self.miner_id, task_id)
            except MachineFault as fault:
                log.error("step_not_recorded", task_id=task_id, reason=fault.message, next="cleaning it up again later")
            if (task := self._tasks.get(task_id)) is not None:
                self._replace(replace(task, places=Places()))

    # ---- waiting ----------------------------------------------------------------------------------

    def wait(self, seconds: float | None, *, since: int) -> None:
        """Until a task comes, goes on or ends, `wake` is called, or `seconds` are over.

        `since` is the `version` that the caller acted upon: a change after it ends the wait at once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.version != since, timeout=seconds)

    def wake(self) -> None:
        with self._changed:
            self._notify()

    # ---- all of these hold the lock ---------------------------------------------------------------

    def _advance(self, task: TaskInHand, stage: Stage, facts: Mapping[str, Any]) -> TaskInHand:
        if stage.name not in NEXT[task.stage.name]:
            raise ValueError(f"a task goes from {task.stage.name} to {stage.name}, which is no way")
        now = self._clock()
        ended = not task.answered and isinstance(stage, (Answered, Closed))
        task = replace(task, stage=stage, since=now, **{**_known_by(stage, task, now), **facts})
        if isinstance(stage, Prepared):
            task = replace(task, places=self._places(task.places, stage.prompt_id))
        self._write(task)
        if isinstance(stage, Closed):
            self._drop(task.task_id)
            self._closed_at = {t: at for t, at in self._closed_at.items() if now - at < REMEMBER} | {task.task_id: now}
        else:
            self._put(task)
        if ended:
            self.cleaner(task)
        return task

    def _places(self, places: Places, prompt_id: str) -> Places:
        """A prompt's files lie in ComfyUI's folders and, on their way, in ours."""
        return Places(prompts=(*places.prompts, prompt_id), folders=(*places.folders, str(self.folder / prompt_id)))

    def _write(self, task: TaskInHand, *, lease: bool = False) -> None:
        owed, self._unwritten = self._unwritten, {}
        for one, anew in ((task, lease), *((other, False) for other in owed.values())):
            try:
                self._journal.record(self.miner_id, one, lease=anew)
            except MachineFault as fault:
                log.error(
                    "step_not_recorded",
                    task_id=one.task_id,
                    step=one.stage.name,
                    reason=fault.message,
                    hint=fault.hint,
                    next="going on: a crash now would repeat the step",
                )
                if isinstance(one.stage, Closed):
                    self._unwritten[one.task_id] = one

    def _put(self, task: TaskInHand) -> None:
        self._replace(task)
        self._notify()

    def _replace(self, task: TaskInHand) -> None:
        self._tasks = MappingProxyType({**self._tasks, task.task_id: task})

    def _drop(self, task_id: str) -> None:
        self._tasks = MappingProxyType({t: task for t, task in self._tasks.items() if t != task_id})
        self._notify()

    def _notify(self) -> None:
        self.version += 1
        self._changed.notify_all()


def _known_by(stage: Stage, task: TaskInHand, now: float) -> dict[str, Any]:
    """What a stage says of the task that begins it."""
    match stage:
        case Prepared():
            return {"workflow": stage.job.workflow, "queued_at": 0.0, "started_at": 0.0, "progress": None}
        case Prompted():
            return {"attempts": task.attempts + 1, "resumed": False}
        case Rendered():
            return {"rendered_at": now, "rendered_in": stage.inference_latency, "progress": None}
        case Uploaded():
            return {"size": stage.size, "rendered_in": stage.inference_latency}
    return {}
