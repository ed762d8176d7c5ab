"""How far each task in hand is, for its consumer: what a heartbeat may carry. Nothing here blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from miner.task.stages import Prompted, Rendered, TaskInHand, Uploaded
from miner.telemetry import clock

QUEUED, RENDERS, RENDERED, UPLOADED = 2.0, 5.0, 92.0, 99.0  # percent at the begin of each


@dataclass(slots=True, kw_only=True)
class Standing:
    """One lane's; for the gate, which asks one request at a time."""

    nodes: Callable[[str], int]  # of a workflow's graph
    usual: Callable[[str], float | None]  # seconds of a workflow's render
    clock: Callable[[], float] = clock.now
    _told: dict[str, float] = field(default_factory=dict)  # task → percent, which never falls

    def of(self, tasks: Collection[TaskInHand]) -> list[dict[str, Any]]:
        """What to tell of each task: its id, stage, percent, and the seconds to its end where they can be guessed."""
        said = [self._of(task) for task in tasks]
        self._told = {one["task_id"]: one["percent"] for one in said}
        return said

    def _of(self, task: TaskInHand) -> dict[str, Any]:
        stage, percent, left = "prepare", 0.0, None
        match task.stage:
            case Uploaded():
                stage, percent = "deliver", UPLOADED
            case Rendered():
                stage, percent = "deliver", RENDERED
            case Prompted() if task.started_at or task.progress:
                done = task.progress.share(self.nodes(task.workflow)) if task.progress else 0.0
                stage, percent = "render", RENDERS + (RENDERED - RENDERS) * done
                left = self._seconds_left(task, done)
            case Prompted():
                stage, percent = "queue", QUEUED
        percent = round(max(percent, self._told.get(task.task_id, 0.0)), 1)
        eta = {} if left is None else {"eta_seconds": round(left, 1)}
        return {"task_id": task.task_id, "stage": stage, "percent": percent, **eta}

    def _seconds_left(self, task: TaskInHand, done: float) -> float | None:
        """By how long this workflow usually takes here, or else by how long this render took so far."""
        if not task.started_at:
            return None
        gone = max(self.clock() - task.started_at, 0.0)
        usual = self.usual(task.workflow)
        if usual is not None and gone < usual:
            return usual - gone
        return gone * (1.0 - done) / done if done > 0.1 else None
