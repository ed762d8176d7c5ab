"""Snapshots of the lanes: frozen records, serialized to JSON as they are.

Taking one needs microseconds and stops no lane, so fields may be from slightly different moments. No task parameters.
Times are wall time in Unix seconds, never durations, so that snapshots are equal while nothing happens. Sentences may
quote others, so each is cleaned like a log line.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from miner import __version__
from miner.comfy.events import Preview
from miner.sequencer.outbox import Outbox
from miner.task.stages import Answered, Closed, Leased, Prepared, Prompted, Rendered, TaskInHand, Uploaded
from miner.telemetry.audience import Audience
from miner.telemetry.clock import wall
from miner.telemetry.log import clean
from miner.worker.lane import Lane
from miner.worker.lane.lane import Loop
from miner.worker.lanes import Lanes

Stage = Literal["prepare", "queue", "render", "deliver", "answer"]
State = Literal["working", "paused", "draining"]


class Controls(Protocol):
    """What the dashboard may read and control, from any thread."""

    @property
    def lanes(self) -> Lanes: ...
    @property
    def audience(self) -> Audience: ...
    @property
    def started_at(self) -> float:
        """A time of `telemetry.clock`."""
        ...

    @property
    def paused(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    def pause(self) -> None:
        """Lease no tasks until `resume` or a restart."""

    def resume(self) -> None: ...
    def drain(self) -> None:
        """Finish the tasks in hand, then exit. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSnapshot:
    """A task in hand."""

    task_id: str
    task_type: str
    workflow: str
    stage: Stage
    leased_at: float
    since: float  # when the stage began
    step: float | None  # of the current node: `step` of `steps`
    steps: float | None
    share: float | None  # of the whole render, 0 to 1
    usual_seconds: float | None  # ComfyUI's average for this workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSnapshot:
    """One loop of a lane. `late`: seconds overdue."""

    name: str
    says: str
    late: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSnapshot:
    """One lane and its ComfyUI."""

    name: str
    miner_id: str
    says: str
    device: str
    comfyui_url: str
    comfyui_version: str
    comfyui_ready: bool
    comfyui_restarts: int
    comfyui_deaf: bool  # its event stream is connected and silent
    without_comfyui_since: float  # when the lane's own ComfyUI ceased to be ready; 0.0: it is, or is an external one
    failed: bool  # a thread crashed
    uncleaned: int = 0  # finished tasks of which something cannot be erased
    uncleaned_why: str = ""  # for one of them
    loops: tuple[LoopSnapshot, ...]
    tasks: tuple[TaskSnapshot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole worker."""

    version: str
    miner_id: str
    sequencer: str  # its host
    answered_at: float  # last valid reply; 0.0: none yet
    started_at: float
    state: State
    says: str
    outbox: LoopSnapshot
    unacknowledged: int
    lanes: tuple[LaneSnapshot, ...]


def take(controls: Controls) -> Snapshot:
    """Take a snapshot."""
    lanes = controls.lanes
    outbox = lanes.outbox
    return Snapshot(
        version=__version__,
        miner_id=lanes.settings.miner.id,
        sequencer=urlsplit(lanes.settings.sequencer.url).netloc.rpartition("@")[2],
        answered_at=wall(max((lane.gate.answered_at for lane in lanes), default=0.0)),
        started_at=wall(controls.started_at),
        state="draining" if controls.draining else "paused" if controls.paused else "working",
        says=clean(lanes.says()),
        outbox=_loop("outbox", outbox),
        unacknowledged=outbox.depth,
        lanes=tuple(_lane(lane) for lane in lanes),
    )


def previews(lanes: Lanes) -> dict[str, Preview | None]:
    """Each lane's latest preview image."""
    return {lane.name: lane.render.preview for lane in lanes}


def data_url(preview: Preview) -> str:
    """The image as a data: URL."""
    return f"data:{preview.mime};base64,{base64.b64encode(preview.image).decode()}"


def _lane(lane: Lane) -> LaneSnapshot:
    stats = lane.host.stats
    return LaneSnapshot(
        name=lane.name,
        miner_id=lane.ledger.miner_id,
        says=clean(lane.sentence),
        device=stats.device if stats else "",
        comfyui_url=lane.host.client.url,
        comfyui_version=stats.version if stats else "",
        comfyui_ready=lane.host.ready.is_set(),
        comfyui_restarts=lane.restarts,
        comfyui_deaf=lane.host.deaf,
        without_comfyui_since=wall(lane.without_comfyui_since),
        failed=lane.failed is not None,
        uncleaned=lane.cleanup.failing,
        uncleaned_why=clean(lane.cleanup.why),
        loops=tuple(_loop(name, loop) for name, loop in lane.loops.items()),
        tasks=tuple(_task(lane, task) for task in lane.ledger.view()),
    )


def _loop(name: str, loop: Loop | Outbox) -> LoopSnapshot:
    return LoopSnapshot(name=name, says=clean(loop.says), late=round(loop.liveness.late))


def _task(lane: Lane, task: TaskInHand) -> TaskSnapshot:
    progress = task.progress
    stage, since = stage_of(task)
    return TaskSnapshot(
        task_id=task.task_id,
        task_type=task.lease.task_type,
        workflow=task.workflow,
        stage=stage,
        leased_at=wall(task.lease.leased_at),
        since=wall(since),
        step=progress.value if progress else None,
        steps=progress.of if progress else None,
        share=progress.share(len(lane.capabilities.library.get(task.workflow).graph)) if progress else None,
        usual_seconds=lane.capabilities.usual_seconds(task.workflow),
    )


def stage_of(task: TaskInHand) -> tuple[Stage, float]:
    """A task's stage as the page names it, and when it began."""
    match task.stage:
        case Leased() | Prepared():
            return "prepare", task.since
        case Prompted():
            if task.started_at or task.progress:
                return "render", task.started_at or task.since
            return "queue", task.queued_at or task.since
        case Rendered() | Uploaded():
            return "deliver", task.rendered_at or task.since
        case Answered() | Closed():
            return "answer", task.since
