"""The ledger: one miner id's tasks in hand, and the only way to change their stages.

Under one lock, `advance` writes the journal, replaces the `TaskInHand`, then wakes the loops that wait for its stage.
Tasks with an outcome go to the cleaner with all their places. `view` returns all tasks, frozen and without waiting, for
the dashboard, metrics, heartbeat and prefetch. The loops have no other queue: each takes the first task at its stage.
No network.
"""

from __future__ import annotations

import threading
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
from miner.telemetry import clock
from miner.telemetry.redaction import hide_task, task_ended

log = structlog.get_logger()

REMEMBER = 1000  # closed tasks to remember

Kinds = tuple[type[Stage], ...]


class Ledger:
    """Thread-safe. Stage changes block for the journal; the rest does not block."""

    def __init__(
        self,
        *,
        miner_id: str,
        journal: Journal,
        folder: Path,
        cleaner: Callable[[TaskInHand], None] = lambda _task: None,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        """`folder`: for temporary files, in a subfolder per prompt id. `cleaner` must not block."""
        self.miner_id = miner_id
        self.folder = folder
        self.version = 0  # counts the changes that end a `wait`
        self.ended = False  # no more tasks will come
        self.cleaner = cleaner
        self._journal = journal
        self._clock = clock
        self._lock = threading.RLock()
        self._waits: dict[Kinds, threading.Condition] = {}  # for which stages: each loop sleeps until its own
        self._tasks: Mapping[str, TaskInHand] = MappingProxyType({})  # replaced as a whole
        self.closings = 0  # how many tasks have closed: a moment that no clock can move
        self._closed: dict[str, tuple[int, str]] = {}  # task → the moment, the verdict
        self._unwritten: dict[str, TaskInHand] = {}  # closed, but not written yet after a disk fault

    # ---- reading ----------------------------------------------------------------------------------

    def view(self) -> tuple[TaskInHand, ...]:
        """The tasks in hand, oldest first."""
        return tuple(self._tasks.values())

    def get(self, task_id: str) -> TaskInHand | None:
        return self._tasks.get(task_id)

    def first(self, *kinds: type[Stage]) -> TaskInHand | None:
        """The first task at one of these stages, in the order of `kinds`; a prompt only once ComfyUI has it."""
        tasks = self.view()
        for kind in kinds:
            for task in sorted(tasks, key=lambda task: task.queued_at) if kind is Prompted else tasks:
                if _is_at(task, (kind,)):
                    return task
        return None

    @property
    def held(self) -> int:
        """The number of tasks leased by this miner."""
        return sum(not task.unknown for task in self.view())

    @property
    def busy(self) -> bool:
        """Whether a task has no outcome yet."""
        return any(not task.answered for task in self.view())

    @property
    def workflows(self) -> tuple[str, ...]:
        """The known workflows of the tasks in hand."""
        return tuple(task.workflow for task in self.view() if task.workflow)

    def closed_since(self, task_id: str, moment: int) -> str:
        """The verdict if the task has closed since `closings` was `moment`, else ""."""
        closing, verdict = self._closed.get(task_id, (0, ""))
        return verdict if closing > moment else ""

    # ---- adding and removing ----------------------------------------------------------------------

    def take(self, lease: Lease) -> TaskInHand:
        """Add a new task, at `Leased`."""
        task = TaskInHand(lease=lease, stage=Leased(), hold=Hold(task_id=lease.task_id), since=self._clock())
        hide_task(lease.task_id, lease.strings())
        with self._lock:
            self._write(task, lease=True)
            self._put(task)
        return task

    def restore(self, task: TaskInHand, *, then: Stage | None = None) -> TaskInHand:
        """Add a task from the journal, and advance it to `then` if given."""
        hide_task(task.task_id, task.lease.strings())
        with self._lock:
            if then is not None:
                return self._advance(task, then, {})
            self._put(task)
            if task.answered:
                self.cleaner(task)
            return task

    def answer_unknown(self, outcome: Outcome) -> TaskInHand:
        """Add a task that only the sequencer knows, at `Answered`."""
        lease = Lease.unknown(outcome.task_id, at=self._clock())
        task = TaskInHand(lease=lease, stage=Leased(), hold=Hold(task_id=outcome.task_id), unknown=True)
        with self._lock:
            return self._advance(task, Answered(outcome=outcome), {})

    def leave(self, task_id: str) -> None:
        """Remove a task without closing it: the next start continues it from the journal."""
        with self._lock:
            self._drop(task_id)

    def end(self) -> None:
        """No more tasks will come: the loops may end."""
        with self._lock:
            self.ended = True
            self._notify()

    # ---- changing ---------------------------------------------------------------------------------

    def advance(self, task_id: str, stage: Stage, *, recorded: bool = True, **facts: Any) -> TaskInHand:
        """Move the task to its next stage, set `facts` (fields of `TaskInHand`) and return it.

        Not `recorded`: nothing happens outside of this process before the next stage, and one record serves for both.
        Raises KeyError for a task not in hand, ValueError for a step not in `NEXT`: both are the caller's bugs. A disk
        fault does not stop the task; a crash then repeats the step.
        """
        with self._lock:
            return self._advance(self._tasks[task_id], stage, facts, recorded=recorded)

    def note(self, task_id: str, **facts: Any) -> None:
        """Set fields that the journal does not keep. Only `queued_at` wakes loops."""
        with self._lock:
            if (task := self._tasks.get(task_id)) is not None:
                self._replace(replace(task, **facts))
                if "queued_at" in facts:
                    self._notify(self._tasks[task_id])

    def lease_again(self, lease: Lease) -> None:
        """The sequencer leased a task in hand again: use the new upload target."""
        with self._lock:
            task = self._tasks.get(lease.task_id)
            if task is None or task.answered or task.lease.target == lease.target:
                return  # it may have ended in another thread just now
            hide_task(lease.task_id, [*task.lease.strings(), *lease.strings()])
            task = replace(task, lease=replace(lease, leased_at=task.lease.leased_at))
            self._write(task, lease=True)
            self._replace(task)

    def apply_reply(
        self, about: Collection[TaskInHand], *, named: str | None, canceled: Collection[str], eclipses: bool = True
    ) -> None:
        """Apply a reply to a request made while the tasks `about` were in hand; see `policy.observe`."""
        holds = policy.observe([task.hold for task in about], running=named, canceled=canceled, eclipses=eclipses)
        with self._lock:
            for hold in holds:
                task = self._tasks.get(hold.task_id)
                if task is None or task.answered:
                    continue
                if hold.taken_away and not task.taken_away:
                    log.info("task_taken_away", task_id=hold.task_id, next="stopping it")
                    self._notify()
                self._replace(replace(task, hold=hold))

    def cleaned(self, left: Mapping[str, Places]) -> None:
        """The tasks' files are deleted but for those that are `left`."""
        with self._lock:
            try:
                self._journal.cleaned(self.miner_id, left)
            except MachineFault as fault:
                log.error("cleanup_not_recorded", reason=fault.message, next="cleaning up again after a restart")
            for task_id, places in left.items():
                if (task := self._tasks.get(task_id)) is not None:
                    self._replace(replace(task, places=places))

    def write_again(self) -> None:
        """Try the records of closed tasks that the disk refused, so that no secret of theirs stays in the journal."""
        if self._unwritten:
            with self._lock:
                self._write()

    # ---- waiting ----------------------------------------------------------------------------------

    def wait(self, seconds: float | None, *kinds: type[Stage], since: int) -> None:
        """Block until a task comes to one of these stages (none named: to any), or leaves; until `wake`; or for
        `seconds`.

        `since`: the `version` that the caller has seen; a later one ends the wait at once.
        """
        with self._lock:
            changed = self._waits.setdefault(kinds, threading.Condition(self._lock))
            changed.wait_for(lambda: self.version != since, timeout=seconds)

    def wake(self) -> None:
        with self._lock:
            self._notify()

    def prompts(self) -> frozenset[str]:
        """Every prompt of the tasks in hand, earlier attempts included."""
        return frozenset(prompt_id for task in self.view() for prompt_id in task.places.prompts)

    # ---- under the lock ---------------------------------------------------------------------------

    def _advance(
        self, task: TaskInHand, stage: Stage, facts: Mapping[str, Any], *, recorded: bool = True
    ) -> TaskInHand:
        if stage.name not in NEXT[task.stage.name]:
            raise ValueError(f"a task cannot go from {task.stage.name} to {stage.name}")
        now = self._clock()
        ended = not task.answered and isinstance(stage, (Answered, Closed))
        task = replace(task, stage=stage, since=now, **{**_known_by(stage, task, now), **facts})
        if isinstance(stage, Prepared):
            task = replace(task, places=self._places(task.places, stage))
        elif isinstance(stage, Rendered):
            places = task.places
            files = (*places.files, *stage.files, *stage.others)
            task = replace(task, places=replace(places, files=files, ended=(*places.ended, stage.prompt_id)))
        if recorded:
            self._write(task)
        if isinstance(stage, Closed):
            self.closings += 1
            self._closed.pop(task.task_id, None)
            self._closed[task.task_id] = (self.closings, stage.verdict)
            if len(self._closed) > REMEMBER:
                del self._closed[next(iter(self._closed))]
            self._drop(task.task_id)
        else:
            self._put(task)
        if ended:
            self.cleaner(task)
            self._forget_secrets(task)
        return self._tasks.get(task.task_id, task)

    def _places(self, places: Places, stage: Prepared) -> Places:
        """Add a prompt's places: ComfyUI's folders, and ours for temporary files."""
        return replace(
            places,
            prompts=(*places.prompts, stage.prompt_id),
            folders=(*places.folders, str(self.folder / stage.prompt_id)),
            inputs=tuple(stage.job.images),
        )

    def _forget_secrets(self, task: TaskInHand) -> None:
        if task.task_id in self._tasks:
            self._replace(replace(task, lease=task.lease.bare()))

    def _write(self, *tasks: TaskInHand, lease: bool = False) -> None:
        owed, self._unwritten = self._unwritten, {}
        for one, with_lease in (*((task, lease) for task in tasks), *((other, False) for other in owed.values())):
            try:
                self._journal.record(self.miner_id, one, lease=with_lease)
            except MachineFault as fault:
                log.error(
                    "step_not_recorded",
                    task_id=one.task_id,
                    step=one.stage.name,
                    reason=fault.message,
                    hint=fault.hint,
                    next="continuing; a crash now would repeat the step",
                )
                if isinstance(one.stage, Closed):
                    self._unwritten[one.task_id] = one

    def _put(self, task: TaskInHand) -> None:
        self._replace(task)
        self._notify(task)

    def _replace(self, task: TaskInHand) -> None:
        self._tasks = MappingProxyType({**self._tasks, task.task_id: task})

    def _drop(self, task_id: str) -> None:
        self._tasks = MappingProxyType({t: task for t, task in self._tasks.items() if t != task_id})
        task_ended(task_id)
        self._notify()

    def _notify(self, task: TaskInHand | None = None) -> None:
        """Wake the loops that wait for the stage of `task`; without, all."""
        self.version += 1
        for kinds, changed in self._waits.items():
            if task is None or not kinds or _is_at(task, kinds):
                changed.notify_all()


def _is_at(task: TaskInHand, kinds: Kinds) -> bool:
    """Whether the task is at one of these stages; a prompt only once ComfyUI has it."""
    return isinstance(task.stage, kinds) and (task.queued_at > 0 or not isinstance(task.stage, Prompted))


def _known_by(stage: Stage, task: TaskInHand, now: float) -> dict[str, Any]:
    """The fields that a new stage sets."""
    match stage:
        case Prepared():
            return {
                "workflow": stage.job.workflow,
                "queued_at": 0.0,
                "started_at": 0.0,
                "rendered_at": 0.0,
                "rendered_in": 0.0,
                "progress": None,
            }
        case Prompted():
            return {"attempts": task.attempts + 1, "resumed": False}
        case Rendered():
            return {"rendered_at": now, "rendered_in": stage.inference_latency, "progress": None}
        case Uploaded():
            return {"size": stage.size, "rendered_in": stage.inference_latency}
    return {}
