"""What the lanes do at one moment, as frozen records that become JSON as they are.

Promises: reading takes microseconds, waits for nobody and changes nothing, though the lanes go on meanwhile; so two
fields may be a moment apart. Nothing of a task's parameters is in it. Times are Unix seconds, and what a viewer can
count itself (how long something has taken) is not in it, so that a snapshot is equal to the last one while nothing
happens. A sentence may repeat what others wrote, so each is cleaned as a line of the log is.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from miner import __version__
from miner.comfy.events import Preview
from miner.sequencer.outbox import Outbox
from miner.task.stages import Answered, Closed, Leased, Prepared, Progress, Prompted, Rendered, TaskInHand, Uploaded
from miner.telemetry.log import clean
from miner.worker.lane import Lane
from miner.worker.lane.lane import Loop
from miner.worker.lanes import Lanes

Stage = Literal["prepare", "queue", "render", "deliver", "answer"]
State = Literal["working", "paused", "draining"]


class Controls(Protocol):
    """What the worker shows and lets be done; all of it from any thread."""

    @property
    def lanes(self) -> Lanes: ...
    @property
    def started_at(self) -> float:
        """Unix seconds."""
        ...

    @property
    def paused(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    def pause(self) -> None:
        """Take no new task until `resume`; not over a restart."""

    def resume(self) -> None: ...
    def drain(self) -> None:
        """Finish what is in hand, then end; more calls change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNow:
    """A task in hand."""

    task_id: str
    task_type: str
    workflow: str
    stage: Stage
    leased_at: float
    since: float  # when the stage began
    step: float | None  # of the node that runs now: `step` of `steps`
    steps: float | None
    share: float | None  # of the whole render, 0 to 1
    usual_seconds: float | None  # that ComfyUI took for the last ones of this workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopNow:
    """One loop of a lane, in its own words; `late` are the seconds for which it has been overdue."""

    name: str
    says: str
    late: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneNow:
    """One lane and its ComfyUI."""

    name: str
    miner_id: str
    says: str
    device: str
    comfyui_url: str
    comfyui_version: str
    comfyui_ready: bool
    comfyui_restarts: int
    failed: bool  # a loop ended by a bug
    loops: tuple[LoopNow, ...]
    tasks: tuple[TaskNow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """All of it."""

    version: str
    miner_id: str
    sequencer: str  # its host
    answered_at: float  # when it last answered as it should; 0.0 before the first time
    started_at: float
    state: State
    says: str
    outbox: LoopNow
    unacknowledged: int
    lanes: tuple[LaneNow, ...]


def take(controls: Controls) -> Now:
    """The moment."""
    lanes = controls.lanes
    outbox = lanes.outbox
    return Now(
        version=__version__,
        miner_id=lanes.settings.miner.id,
        sequencer=urlsplit(lanes.settings.sequencer.url).netloc.rpartition("@")[2],
        answered_at=max((lane.gate.answered_at for lane in lanes), default=0.0),
        started_at=controls.started_at,
        state="draining" if controls.draining else "paused" if controls.paused else "working",
        says=clean(lanes.says()),
        outbox=_loop("outbox", outbox),
        unacknowledged=outbox.depth,
        lanes=tuple(_lane(lane) for lane in lanes),
    )


def previews(lanes: Lanes) -> dict[str, Preview | None]:
    """Each lane's latest picture of what it renders."""
    return {lane.name: lane.render.preview for lane in lanes}


def data_url(preview: Preview) -> str:
    """The picture as a page can show it."""
    return f"data:{preview.mime};base64,{base64.b64encode(preview.image).decode()}"


def _lane(lane: Lane) -> LaneNow:
    stats = lane.host.stats
    return LaneNow(
        name=lane.name,
        miner_id=lane.ledger.miner_id,
        says=clean(lane.sentence),
        device=stats.device if stats else "",
        comfyui_url=lane.host.client.url,
        comfyui_version=stats.version if stats else "",
        comfyui_ready=lane.host.ready.is_set(),
        comfyui_restarts=lane.restarts,
        failed=lane.failed is not None,
        loops=tuple(_loop(name, loop) for name, loop in lane.loops.items()),
        tasks=tuple(_task(lane, task) for task in lane.ledger.view()),
    )


def _loop(name: str, loop: Loop | Outbox) -> LoopNow:
    return LoopNow(name=name, says=clean(loop.says), late=round(loop.liveness.late))


def _task(lane: Lane, task: TaskInHand) -> TaskNow:
    progress = task.progress
    stage, since = stage_of(task)
    return TaskNow(
        task_id=task.task_id,
        task_type=task.lease.task_type,
        workflow=task.workflow,
        stage=stage,
        leased_at=task.lease.leased_at,
        since=since,
        step=progress.value if progress else None,
        steps=progress.of if progress else None,
        share=share(progress, nodes=len(lane.capabilities.library.get(task.workflow).graph)) if progress else None,
        usual_seconds=lane.capabilities.usual_seconds(task.workflow),
    )


def stage_of(task: TaskInHand) -> tuple[Stage, float]:
    """Where a task is, in a word for people, and since when."""
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


def share(progress: Progress, *, nodes: int) -> float:
    """How much of a prompt is done, a node counting like any other. ComfyUI tells of a node once it has begun, so the
    graph says how many there are."""
    current = min(progress.value / progress.of, 1.0) if progress.of > 0 else 0.0
    whole = max(nodes, progress.nodes, 1)
    return round(min((progress.done + (current if progress.done < progress.nodes else 0.0)) / whole, 1.0), 4)
