"""The task log: one log line per outcome, its metrics, and its facts for the history.

Logs nothing of a task's content beyond its answer and the names of the parameters that it has in vain.
"""

from __future__ import annotations

import re
from typing import Literal

import structlog

from miner.task.stages import Facts, Outcome, TaskInHand
from miner.telemetry import metrics
from miner.telemetry.log import clean
from miner.telemetry.sizes import MEGABYTE

log = structlog.get_logger()

Ending = Literal["done", "refused", "failed"]
"""Answered with a result; with a failure before any GPU time was spent; with one after."""

_QUOTED = re.compile(r"'[^']*'")  # quotes a task, perhaps a prompt in the wrong field
SHOWN = 8  # characters of a task id in sentences


def short(task_id: str) -> str:
    """A task id shortened for sentences."""
    return task_id if len(task_id) <= SHOWN else f"{task_id[:SHOWN]}…"


def ending(task: TaskInHand, outcome: Outcome) -> Ending:
    if outcome.success:
        return "done"
    return "failed" if task.attempts or task.rendered_in else "refused"


def facts_of(task: TaskInHand, *, now: float) -> Facts:
    """The task's durations; None for a stage not reached, or interrupted by a restart."""
    began = task.started_at or task.rendered_at - task.rendered_in
    queued_at = 0.0 if task.resumed else task.queued_at
    return Facts(
        prepare=_span(task.lease.leased_at, queued_at),
        queue=_span(queued_at, began if task.rendered_at else 0.0),
        render=task.rendered_in or None,
        deliver=_span(task.rendered_at, now),
        total=max(now - task.lease.leased_at, 0.0),
        size=task.size,
    )


def told(msg: str) -> str:
    """An answer's `msg` for log and history: without strings of the task."""
    text: str = clean(_QUOTED.sub("'…'", msg))
    return text


def log_end(task: TaskInHand, outcome: Outcome, facts: Facts) -> None:
    """Log a task's one line at INFO, and count it."""
    end = ending(task, outcome)
    metrics.TASKS.labels(task.workflow or "unknown", end).inc()
    if end == "done":
        metrics.LAST_DONE.set_to_current_time()
    for stage in ("prepare", "queue", "render", "deliver", "total"):
        if (seconds := getattr(facts, stage)) is not None and task.workflow:
            metrics.STAGE_SECONDS.labels(stage, task.workflow).observe(seconds)
    log.info(
        f"task_{end}",
        task_id=task.task_id,
        workflow=task.workflow,
        seed=task.seed,
        prepare_s=_rounded(facts.prepare),
        queue_s=_rounded(facts.queue),
        render_s=_rounded(facts.render),
        upload_s=_rounded(outcome.upload_latency) if outcome.success else None,
        total_s=_rounded(facts.total),
        mb=round(facts.size / MEGABYTE, 2) if facts.size else None,
        ignored=metrics.count_ignored(task.ignored) or None,
        reason=told(outcome.msg) or None,
    )


def log_lost(task: TaskInHand, *, now: float) -> None:
    """The same for a task that the sequencer took away."""
    metrics.TASKS.labels(task.workflow or "unknown", "lost").inc()
    log.info(
        "task_lost",
        task_id=task.task_id,
        workflow=task.workflow,
        total_s=_rounded(now - task.lease.leased_at),
        reason="the sequencer took it away",
    )


def _span(begin: float, end: float) -> float | None:
    return max(end - begin, 0.0) if begin and end else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
