"""Every metric, declared once and named by Prometheus's conventions: base units, `_total` for counters.

Promises: no label value comes from a consumer, so strangers cannot create series, but for the names of ignored
parameters, of which there are at most MOST_NAMES; workflows are labelled by the names in the operator's library.
Counters and histograms are updated where the event happens, from any thread, in microseconds. Gauges are read from the
lanes at each scrape: see `miner.dashboard.gauges`. Never: does I/O.
"""

from __future__ import annotations

import platform
import re
import threading
from collections.abc import Iterable

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

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second, unused series for each counter
REGISTRY = CollectorRegistry(auto_describe=True)
"""Our own, without the metrics of libraries."""

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
    "tasks", "Finished tasks, by workflow and outcome: done, refused, failed, lost.", "workflow", "outcome"
)
STAGE_SECONDS = _histogram(
    "task_stage_seconds",
    "Seconds per task in a stage: prepare, queue, render, deliver; total is from lease to answer.",
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
INPUT_BYTES = _counter("input_bytes", "Bytes of downloaded inputs.")
OUTPUT_BYTES = _counter("output_bytes", "Bytes of uploaded results.")
FAULTS = _counter(
    "workflow_faults",
    "Renders that this machine spoiled, by workflow and fault: memory, poisoned, disk, weights, refused, network, "
    "interrupted, machine, unknown.",
    "workflow",
    "fault",
)
IGNORED = _counter(
    "ignored_parameters",
    "Parameters of tasks that their workflow does not know, by name: the first 50 names, and then other.",
    "name",
)
RETRIES = _counter("retries", "Retries after a failure, by what: render, upload, answer.", "what")
TASKS_IN_HAND = _gauge("tasks_in_hand", "Tasks in hand, with those not acknowledged yet.", "lane")
LOOP_CRASHES = _counter("loop_crashes", "Unexpected errors (bugs) outside of a task, by loop.", "loop")
TASK_CRASHES = _counter("task_crashes", "Tasks that ended in an unexpected error (a bug), by loop.", "loop")
LAST_DONE = _gauge("last_done_timestamp_seconds", "Time of the last answer with a result; 0 if none yet.")

MOST_NAMES = 50
OTHER = "other"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_names: set[str] = set()
_names_lock = threading.Lock()


def count_ignored(names: Iterable[str]) -> list[str]:
    """Count a task's ignored parameters. Returns their names for the log: one that is no plain word, which may be a
    consumer's text, is `other`."""
    plain = [name if _NAME.fullmatch(name) else OTHER for name in names]
    for name in plain:
        with _names_lock:
            if len(_names) < MOST_NAMES:
                _names.add(name)
            label = name if name in _names else OTHER
        IGNORED.labels(label).inc()
    return plain


# ---- the sequencer ----------------------------------------------------------------------------------------------

LEASE_REQUESTS = _counter(
    "lease_requests", "Lease requests, by reply: task, nothing, running, refused (the id or key), error.", "reply"
)
SUBMISSIONS = _counter("submissions", "Answers sent, by reply: acknowledged, refused, gone, error.", "reply")
SEQUENCER_ANSWERED = _gauge(
    "sequencer_answered_timestamp_seconds", "When the sequencer last gave a valid answer; 0 before the first."
)
OUTBOX_DEPTH = _gauge("outbox_depth", "Answers not yet acknowledged.")

# ---- ComfyUI and the machine ------------------------------------------------------------------------------------

COMFYUI_RESTARTS = _counter("comfyui_restarts", "ComfyUI restarts.", "lane")
COMFYUI_DEAF = _counter(
    "comfyui_deaf",
    "Times that ComfyUI's event stream was connected and silent, by what was done: reconnected, restarted, told.",
    "what",
)
COMFYUI_READY = _gauge("comfyui_ready", "1 while ComfyUI is ready for prompts.", "lane")
COMFYUI_MEMORY = _gauge("comfyui_resident_memory_bytes", "RAM of a managed ComfyUI.", "lane")
RESTING = _gauge("workflow_paused", "1 while a workflow is paused after faults of this machine.", "workflow")
RUNNABLE = _gauge("workflow_runnable", "1 if an enabled workflow can run on this machine.", "workflow")
PAUSED = _gauge("paused", "1 while paused by the operator.")
DRAINING = _gauge("draining", "1 while the miner finishes its tasks before it stops.")
DISK_FREE = _gauge("disk_free_bytes", "Free bytes on the fullest file system that the miner writes to.")
DISK_NEEDED = _gauge("disk_needed_bytes", "Free bytes below which no task is leased.")
GPU_LOAD = _gauge("gpu_utilization_ratio", "Share of recent time that the GPU was busy.", "gpu")
GPU_MEMORY_USED = _gauge("gpu_memory_used_bytes", "Video memory in use, by any process.", "gpu")
GPU_MEMORY_TOTAL = _gauge("gpu_memory_total_bytes", "Total video memory of the GPU.", "gpu")
GPU_TEMPERATURE = _gauge("gpu_temperature_celsius", "Temperature of the GPU.", "gpu")
GPU_POWER = _gauge("gpu_power_watts", "Power draw of the card.", "gpu")

for _metric, _values in (
    (RETRIES, ("render", "upload", "answer")),
    (LEASE_REQUESTS, ("task", "nothing", "running", "refused", "error")),
    (COMFYUI_DEAF, ("reconnected", "restarted", "told")),
    (SUBMISSIONS, ("acknowledged", "refused", "gone", "error")),
    (TASK_CRASHES, ("prepare", "render", "deliver")),
    (LOOP_CRASHES, ("prepare", "render", "deliver", "heartbeat", "refresh", "outbox")),
):
    for _value in _values:
        _metric.labels(_value)  # present from the start, so that a rate sees the first one

BUILD = Info("xalora_build", "Version of the miner and of Python.", registry=REGISTRY)
BUILD.info({"version": __version__, "python": platform.python_version()})
