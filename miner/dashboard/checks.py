"""Health checks: a mark, a sentence and a fix each. Pure.

The page's Health, /healthz and /readyz all use these, so that they never disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from miner.dashboard.gpus import Card
from miner.dashboard.snapshot import LaneSnapshot, Snapshot
from miner.telemetry.health import Level, Mark
from miner.telemetry.sizes import GIGABYTE, gb

HOT = 87.0  # °C; consumer GPUs throttle from about here
_PAUSED = "see execution_error and workflow_paused in the log; the miner tries again when the pause is over"
SILENT = 90.0  # seconds without a reply, in addition to the time a request may be held


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthInputs:
    """Input of the checks."""

    now: Snapshot
    at: float  # Unix seconds
    runnable: int  # workflows that can run, on any lane
    enabled: int
    resting: Sequence[str]  # workflows that are paused after faults of this machine, each with the last fault
    free_disk: int  # bytes
    least_disk: int  # bytes below which leasing stops
    wait: float  # seconds that the sequencer may hold a request open
    give_up_after: float  # seconds without a ComfyUI
    cards: Sequence[Card] = ()
    broken_loras: Mapping[str, str] = field(default_factory=dict)  # name → what is wrong: "it is empty"


def alive(inputs: HealthInputs) -> tuple[Mark, ...]:
    """For /healthz: whether all loops are alive, and a ComfyUI may yet come up. If not, restart the process."""
    return (*_loops(inputs.now), *_given_up(inputs))


def ready(inputs: HealthInputs) -> tuple[Mark, ...]:
    """For /readyz: whether the miner would lease a task and could run it."""
    comfyuis = tuple(_comfyui(lane) for lane in inputs.now.lanes)
    return (*alive(inputs), *comfyuis, _sequencer(inputs), _workflows(inputs), _disk(inputs), _leasing(inputs.now))


def marks(inputs: HealthInputs) -> tuple[Mark, ...]:
    """All checks, for people."""
    leftovers = (_leftovers(lane) for lane in inputs.now.lanes if lane.uncleaned)
    loras = _loras(inputs.broken_loras)
    return (*ready(inputs), _outbox(inputs.now), *leftovers, *loras, *(_heat(card) for card in inputs.cards))


def _loras(broken: Mapping[str, str]) -> Iterator[Mark]:
    if broken:
        says = "; ".join(f"{name} is broken: {flaw}" for name, flaw in broken.items())
        yield Mark(name="LoRAs", level="warning", says=says, cure="delete them and download them again")


def is_alive(inputs: HealthInputs) -> bool:
    return all(mark.level != "bad" for mark in alive(inputs))


def is_ready(inputs: HealthInputs) -> bool:
    """Ready with at least one lane whose ComfyUI is ready."""
    needed = (*alive(inputs), _sequencer(inputs), _workflows(inputs), _disk(inputs), _leasing(inputs.now))
    return all(mark.level != "bad" for mark in needed) and any(lane.comfyui_ready for lane in inputs.now.lanes)


def _loops(now: Snapshot) -> Iterator[Mark]:
    for lane in now.lanes:
        if lane.failed:
            yield Mark(
                name=f"Lane {lane.name}",
                level="bad",
                says="a worker thread crashed (a bug)",
                cure="restart the miner, and report loop_failed from its log",
            )
            continue
        late = [loop for loop in lane.loops if loop.late]
        yield Mark(
            name=f"Lane {lane.name}",
            level="bad" if late else "good",
            says="; ".join(f"{loop.name} has been stuck for {loop.late:.0f} s: {loop.says}" for loop in late)
            or "all loops are alive",
            cure="restart the miner, and report the log" if late else "",
        )
    if now.outbox.late:
        says = f"the outbox has been stuck for {now.outbox.late:.0f} s"
        yield Mark(name="Outbox's loop", level="bad", says=says, cure="restart the miner; no answer is lost")


def _given_up(inputs: HealthInputs) -> Iterator[Mark]:
    """No managed ComfyUI has been ready for long: the GPU or its driver is gone, and only a new container has it again.

    One lane that can render keeps the process alive, and so does an external ComfyUI.
    """
    since = [lane.without_comfyui_since for lane in inputs.now.lanes]
    if all(since) and (away := inputs.at - max(since)) >= inputs.give_up_after:
        says = f"no ComfyUI could be started for {away / 60:.0f} min; the miner exits soon, to be restarted"
        yield Mark(name="ComfyUI", level="bad", says=says, cure="see ComfyUI's log, nvidia-smi and dmesg")


def _comfyui(lane: LaneSnapshot) -> Mark:
    again = f", restarted {_times(lane.comfyui_restarts)}" if lane.comfyui_restarts else ""
    name = f"ComfyUI of lane {lane.name}"
    if lane.comfyui_ready:
        says = f"ready, version {lane.comfyui_version or 'unknown'}, on {lane.device or 'an unknown device'}{again}"
        if lane.comfyui_deaf:
            cure = "restart it, and check a proxy before it; until then, ends of renders are noticed later"
            return Mark(name=name, level="warning", says=f"{says}; its event stream is silent", cure=cure)
        return Mark(name=name, level="warning" if lane.comfyui_restarts > 2 else "good", says=says)
    render = next(loop.says for loop in lane.loops if loop.name == "render")
    cure = f"check that it runs at {lane.comfyui_url}, and its log"
    return Mark(name=name, level="bad", says=render + again, cure=cure)


def _sequencer(inputs: HealthInputs) -> Mark:
    now, name = inputs.now, "Sequencer"
    if now.state == "paused" and not any(lane.tasks for lane in now.lanes):
        return Mark(name=name, level="note", says=f"{now.sequencer}: no requests while paused")
    if not now.answered_at:
        level: Level = "note" if inputs.at - now.started_at < SILENT else "bad"
        return Mark(
            name=name,
            level=level,
            says=f"{now.sequencer} has not answered since startup",
            cure="check lease_request_failed in the log, and XALORA_WORKFLOW_URL",
        )
    silence = inputs.at - now.answered_at
    if silence > SILENT + inputs.wait:
        cure = "check this machine's network; the miner keeps trying"
        return Mark(name=name, level="bad", says=f"{now.sequencer} last answered {silence:.0f} s ago", cure=cure)
    return Mark(name=name, level="good", says=f"{now.sequencer} answers")


def _workflows(inputs: HealthInputs) -> Mark:
    name = "Workflows"
    if inputs.resting:
        level: Level = "bad" if len(inputs.resting) == inputs.runnable else "warning"
        says = f"{len(inputs.resting)} of {inputs.runnable} workflows are paused after faults of this machine"
        return Mark(name=name, level=level, says=f"{says}; {inputs.resting[0]}", cure=_PAUSED)
    if inputs.runnable:
        says = f"{inputs.runnable} of {inputs.enabled} enabled workflows can run"
        return Mark(name=name, level="good" if inputs.runnable == inputs.enabled else "note", says=says)
    return Mark(
        name=name, level="bad", says="no enabled workflow can run", cure="see the reasons on the page Workflows"
    )


def _leftovers(lane: LaneSnapshot) -> Mark:
    tasks = "one finished task" if lane.uncleaned == 1 else f"{lane.uncleaned} finished tasks"
    return Mark(
        name=f"Leftovers of lane {lane.name}",
        level="warning",
        says=f"something of {tasks} cannot be erased: {lane.uncleaned_why}",
        cure="give the miner write permission in ComfyUI's folders; it keeps trying",
    )


def _outbox(now: Snapshot) -> Mark:
    if now.unacknowledged:
        return Mark(name="Outbox", level="warning", says=now.outbox.says, cure="none needed: the miner retries")
    return Mark(name="Outbox", level="good", says="every answer is acknowledged")


def _disk(inputs: HealthInputs) -> Mark:
    says = f"{gb(inputs.free_disk)} free; the minimum is {inputs.least_disk / GIGABYTE:g} GB"
    if inputs.free_disk < inputs.least_disk:
        return Mark(name="Disk", level="bad", says=f"{says}: leasing stopped", cure="free disk space")
    tight = inputs.free_disk < 2 * inputs.least_disk
    return Mark(
        name="Disk", level="warning" if tight else "good", says=says, cure="free disk space soon" if tight else ""
    )


def _heat(card: Card) -> Mark:
    name = f"GPU {card.index}"
    degrees = card.latest.temperature
    if degrees is None:
        return Mark(name=name, level="note", says=f"{card.name} does not report its temperature")
    if degrees >= HOT:
        cure = "clean the fans, or lower its power limit: sudo nvidia-smi -pl WATTS"
        return Mark(name=name, level="warning", says=f"{card.name} is at {degrees:.0f} °C", cure=cure)
    return Mark(name=name, level="good", says=f"{card.name} is at {degrees:.0f} °C")


def _leasing(now: Snapshot) -> Mark:
    name = "Leasing"
    if now.state == "draining":
        return Mark(name=name, level="bad", says="draining: the miner exits after its tasks")
    if now.state == "paused":
        return Mark(name=name, level="note", says="paused: leasing stopped", cure="xalora-miner resume")
    return Mark(name=name, level="good", says="leasing tasks")


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
