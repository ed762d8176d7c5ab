"""What is well and what is not: a mark, a sentence and a cure each. Pure.

The page's Health, /healthz and /readyz are all made of these, so that they never contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from miner.dashboard.gpus import Card
from miner.dashboard.snapshot import LaneNow, Now
from miner.telemetry.health import Level, Mark

HOT = 87.0  # °C; consumer cards slow down from about there
SILENT = 90.0  # seconds without an answer, beyond what the sequencer may hold a request open


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the checks look at."""

    now: Now
    at: float  # Unix seconds
    runnable: int  # workflows that can run, on any lane
    enabled: int
    free_disk: int  # bytes
    least_disk: int  # bytes below which no task is taken
    wait: float  # seconds that the sequencer may hold a request open
    cards: Sequence[Card] = ()


def alive(scene: Scene) -> tuple[Mark, ...]:
    """For /healthz: whether the loops turn. A process for which this is bad is of no more use."""
    return tuple(_loops(scene.now))


def ready(scene: Scene) -> tuple[Mark, ...]:
    """For /readyz: whether a task would be taken and could be done."""
    comfyuis = tuple(_comfyui(lane) for lane in scene.now.lanes)
    return (*alive(scene), *comfyuis, _sequencer(scene), _workflows(scene), _leasing(scene.now))


def marks(scene: Scene) -> tuple[Mark, ...]:
    """Everything, for people."""
    return (*ready(scene), _outbox(scene.now), _disk(scene), *(_heat(card) for card in scene.cards))


def is_alive(scene: Scene) -> bool:
    return all(mark.level != "bad" for mark in alive(scene))


def is_ready(scene: Scene) -> bool:
    """A lane that waits for its ComfyUI does not keep the others from working."""
    needed = (*alive(scene), _sequencer(scene), _workflows(scene), _leasing(scene.now))
    return all(mark.level != "bad" for mark in needed) and any(lane.comfyui_ready for lane in scene.now.lanes)


def _loops(now: Now) -> Iterator[Mark]:
    for lane in now.lanes:
        if lane.failed:
            yield Mark(
                name=f"Lane {lane.name}",
                level="bad",
                says="one of its loops ended by an error that is a bug",
                cure="restart the miner; its log says loop_failed and where",
            )
            continue
        late = [loop for loop in lane.loops if loop.late]
        yield Mark(
            name=f"Lane {lane.name}",
            level="bad" if late else "good",
            says="; ".join(f"{loop.name} has been stuck for {loop.late:.0f} s: {loop.says}" for loop in late)
            or "all its loops turn",
            cure="restart the miner, and tell its makers what the log says" if late else "",
        )
    if now.outbox.late:
        says = f"the outbox has been stuck for {now.outbox.late:.0f} s"
        yield Mark(name="Outbox's loop", level="bad", says=says, cure="restart the miner; no answer is lost by that")


def _comfyui(lane: LaneNow) -> Mark:
    again = f", restarted {_times(lane.comfyui_restarts)}" if lane.comfyui_restarts else ""
    name = f"ComfyUI of lane {lane.name}"
    if lane.comfyui_ready:
        says = f"ready, version {lane.comfyui_version or 'unknown'}, on {lane.device or 'an unknown device'}{again}"
        return Mark(name=name, level="warning" if lane.comfyui_restarts > 2 else "good", says=says)
    render = next(loop.says for loop in lane.loops if loop.name == "render")
    cure = f"see that it runs at {lane.comfyui_url}, and what its log says"
    return Mark(name=name, level="bad", says=render + again, cure=cure)


def _sequencer(scene: Scene) -> Mark:
    now, name = scene.now, "Sequencer"
    if now.state == "paused" and not any(lane.tasks for lane in now.lanes):
        return Mark(name=name, level="note", says=f"{now.sequencer} is not asked while the miner is paused")
    if not now.answered_at:
        level: Level = "note" if scene.at - now.started_at < SILENT else "bad"
        return Mark(
            name=name,
            level=level,
            says=f"{now.sequencer} has not answered since the start",
            cure="see the log's lines lease_request_failed, and XALORA_WORKFLOW_URL",
        )
    silence = scene.at - now.answered_at
    if silence > SILENT + scene.wait:
        cure = "check this machine's network; the miner goes on asking by itself"
        return Mark(name=name, level="bad", says=f"{now.sequencer} last answered {silence:.0f} s ago", cure=cure)
    return Mark(name=name, level="good", says=f"{now.sequencer} answers")


def _workflows(scene: Scene) -> Mark:
    name = "Workflows"
    if scene.runnable:
        says = f"{scene.runnable} of {scene.enabled} that are enabled can run"
        return Mark(name=name, level="good" if scene.runnable == scene.enabled else "note", says=says)
    return Mark(name=name, level="bad", says="none that is enabled can run here", cure="the page Workflows says why")


def _outbox(now: Now) -> Mark:
    if now.unacknowledged:
        return Mark(name="Outbox", level="warning", says=now.outbox.says, cure="none needed: it goes on until they are")
    return Mark(name="Outbox", level="good", says="every answer is acknowledged")


def _disk(scene: Scene) -> Mark:
    free, least = scene.free_disk / 1e9, scene.least_disk / 1e9
    says = f"{free:.1f} GB are free, and {least:g} GB are needed"
    if scene.free_disk < scene.least_disk:
        return Mark(name="Disk", level="bad", says=f"{says}: no task is taken", cure="make room")
    tight = scene.free_disk < 2 * scene.least_disk
    return Mark(name="Disk", level="warning" if tight else "good", says=says, cure="make room soon" if tight else "")


def _heat(card: Card) -> Mark:
    name = f"GPU {card.index}"
    degrees = card.latest.temperature
    if degrees is None:
        return Mark(name=name, level="note", says=f"{card.name} does not say how hot it is")
    if degrees >= HOT:
        cure = "clean its fans, or lower its power limit: sudo nvidia-smi -pl WATTS"
        return Mark(name=name, level="warning", says=f"{card.name} is at {degrees:.0f} °C", cure=cure)
    return Mark(name=name, level="good", says=f"{card.name} is at {degrees:.0f} °C")


def _leasing(now: Now) -> Mark:
    name = "Leasing"
    if now.state == "draining":
        return Mark(name=name, level="bad", says="draining: the miner ends after what is in hand")
    if now.state == "paused":
        return Mark(name=name, level="note", says="paused: no new task is taken", cure="xalora-miner resume")
    return Mark(name=name, level="good", says="new tasks are taken")


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
