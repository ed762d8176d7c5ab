"""Every metric, declared once, and named as Prometheus wants it: base units, `_total` for what only grows.

Promises: no label has a value that a consumer chooses, so a stranger cannot make series; workflows are labelled by the
names of the operator's own library. Whoever sees something happen counts it here, from any thread, in microseconds.
What is a level and no event (`Gauge`) is read from the lanes when somebody scrapes: see `miner.dashboard.gauges`.
Never: I/O, or a look at anything but its arguments.
"""

from __future__ import annotations

import platform

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from miner import __version__

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter: nobody asks for it
REGISTRY = CollectorRegistry(auto_describe=True)
"""Ours alone, so that no library's metrics get in."""

_STAGES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
_GAPS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

ProcessCollector(registry=REGISTRY)  # process_cpu_seconds_total, process_resident_memory_bytes, …


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"xalora_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"xalora_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"xalora_{name}", text, labels, buckets=buckets, registry=REGISTRY)


# ---- tasks ------------------------------------------------------------------------------------------------------

TASKS = _counter(
    "tasks", "Tasks that ended, by workflow and outcome: done, refused, failed, lost.", "workflow", "outcome"
)
STAGE_SECONDS = _histogram(
    "task_stage_seconds",
    "Seconds that tasks spent in a stage: prepare, queue, render, deliver; total is from lease to answer.",
    "stage",
    "workflow",
    buckets=_STAGES,
)
IDLE_GAP_SECONDS = _histogram(
    "gpu_idle_gap_seconds",
    "Seconds between the end of one prompt and the start of the next in ComfyUI.",
    "lane",
    buckets=_GAPS,
)
INPUT_BYTES = _counter("input_bytes", "Bytes of inputs that were fetched.")
OUTPUT_BYTES = _counter("output_bytes", "Bytes of results that were uploaded.")
RETRIES = _counter("retries", "Further tries after a failure, of what: render, upload, answer.", "what")
TASKS_IN_HAND = _gauge("tasks_in_hand", "Tasks that are held, unacknowledged ones among them.", "lane")
LAST_DONE = _gauge("last_done_timestamp_seconds", "When a task was last answered with a result; 0 before the first.")

# ---- the sequencer ----------------------------------------------------------------------------------------------

LEASE_REQUESTS = _counter(
    "lease_requests", "Requests for a task, by reply: task, nothing, running, refused (the id or key), error.", "reply"
)
SUBMISSIONS = _counter("submissions", "Answers sent, by reply: acknowledged, refused, gone, error.", "reply")
SEQUENCER_ANSWERED = _gauge(
    "sequencer_answered_timestamp_seconds", "When the sequencer last answered as it should; 0 before the first time."
)
OUTBOX_DEPTH = _gauge("outbox_depth", "Answers that the sequencer has not acknowledged.")

# ---- ComfyUI and the machine ------------------------------------------------------------------------------------

COMFYUI_RESTARTS = _counter("comfyui_restarts", "Times that another ComfyUI process was there than before.", "lane")
COMFYUI_READY = _gauge("comfyui_ready", "1 while ComfyUI is ready for prompts.", "lane")
COMFYUI_MEMORY = _gauge("comfyui_resident_memory_bytes", "RAM of a ComfyUI that the miner started.", "lane")
RUNNABLE = _gauge("workflow_runnable", "1 where an enabled workflow can run on this machine.", "workflow")
PAUSED = _gauge("paused", "1 while the operator wants no new tasks.")
DRAINING = _gauge("draining", "1 while the miner finishes what is in hand before it ends.")
DISK_FREE = _gauge("disk_free_bytes", "Free bytes of the file systems that the miner writes to; the least of them.")
DISK_NEEDED = _gauge("disk_needed_bytes", "Free bytes below which no task is taken.")
GPU_LOAD = _gauge("gpu_utilization_ratio", "Share of the last moments in which the GPU was busy.", "gpu")
GPU_MEMORY_USED = _gauge("gpu_memory_used_bytes", "Video memory in use, by anybody.", "gpu")
GPU_MEMORY_TOTAL = _gauge("gpu_memory_total_bytes", "Video memory of the card.", "gpu")
GPU_TEMPERATURE = _gauge("gpu_temperature_celsius", "Temperature of the GPU.", "gpu")
GPU_POWER = _gauge("gpu_power_watts", "Power that the card draws.", "gpu")

for _metric, _values in (
    (RETRIES, ("render", "upload", "answer")),
    (LEASE_REQUESTS, ("task", "nothing", "running", "refused", "error")),
    (SUBMISSIONS, ("acknowledged", "refused", "gone", "error")),
):
    for _value in _values:
        _metric.labels(_value)  # there from the start, so that a rate sees the first one

BUILD = Info("xalora_build", "Which program this is.", registry=REGISTRY)
BUILD.info({"version": __version__, "python": platform.python_version()})
