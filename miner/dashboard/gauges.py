"""The gauges, set on each scrape."""

from __future__ import annotations

from prometheus_client import generate_latest

from miner.dashboard.view import View
from miner.telemetry import metrics
from miner.telemetry.clock import wall
from miner.telemetry.sizes import GIGABYTE
from miner.worker.lane import Lane


def exposition(view: View) -> bytes:
    """All metrics in Prometheus text format. Blocks to read the disk and the process table."""
    lanes = view.controls.lanes
    for lane in lanes:
        _lane(lane)
    metrics.OUTBOX_DEPTH.set(lanes.outbox.depth)
    metrics.SEQUENCER_ANSWERED.set(wall(max((lane.gate.answered_at for lane in lanes), default=0.0)))
    metrics.PAUSED.set(view.controls.paused)
    metrics.DRAINING.set(view.controls.draining)
    metrics.DISK_FREE.set(view.free_disk())
    metrics.DISK_NEEDED.set(lanes.settings.miner.min_free_disk_gb * GIGABYTE)
    healthy = {name for lane in lanes for name in lane.capabilities.healthy()}
    runnable = {name for lane in lanes for name in lane.capabilities.runnable}
    for name in lanes.settings.workflows.enabled:
        metrics.RUNNABLE.labels(name).set(name in runnable)
        metrics.RESTING.labels(name).set(name in runnable - healthy)
        for outcome in ("done", "refused", "failed", "lost"):
            metrics.TASKS.labels(name, outcome)  # starts at 0, so that rate() sees the first one
    _gpus(view)
    return generate_latest(metrics.REGISTRY)


def _lane(lane: Lane) -> None:
    metrics.TASKS_IN_HAND.labels(lane.name).set(len(lane.ledger.view()))
    metrics.COMFYUI_READY.labels(lane.name).set(lane.host.ready.is_set())
    if lane.host.process is not None:
        metrics.COMFYUI_MEMORY.labels(lane.name).set(lane.host.process.rss_bytes())


def _gpus(view: View) -> None:
    for card in view.cards():
        latest = card.latest
        for gauge, value in (
            (metrics.GPU_LOAD, latest.load),
            (metrics.GPU_MEMORY_USED, latest.memory),
            (metrics.GPU_MEMORY_TOTAL, card.memory_total),
            (metrics.GPU_TEMPERATURE, latest.temperature),
            (metrics.GPU_POWER, latest.power),
        ):
            if value is not None:
                gauge.labels(str(card.index)).set(value)
