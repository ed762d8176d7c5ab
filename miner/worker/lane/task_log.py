"""The story of a task, once its outcome is known: one line in the log, its numbers in the metrics, its facts for the
history. It decides nothing, and tells nothing that the task itself said but what its answer says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import structlog

from miner.task.journal import Facts
from miner.task.stages import Outcome
from miner.telemetry import metrics

if TYPE_CHECKING:
    from miner.worker.lane.leases import Held

log = structlog.get_logger()

Ending = Literal["done", "refused", "failed"]
"""Answered with a result; answered with its reason before any GPU time was spent, or after."""

_QUOTED = re.compile(r"'[^']*'")  # what a task said, which may be a prompt in the wrong field
SHOWN = 8  # characters of a task's id in a sentence


def short(task_id: str) -> str:
    """A task's id as a sentence has it: its beginning."""
    return task_id if len(task_id) <= SHOWN else f"{task_id[:SHOWN]}…"


def ending(held: Held, outcome: Outcome) -> Ending:
    if outcome.success:
        return "done"
    return "failed" if held.prompted_at or held.attempts or held.rendered_in else "refused"


def facts_of(held: Held, *, now: float) -> Facts:
    """What is known of the task's way. A stage that it did not reach, or that a restart cut in two, has no seconds."""
    began = held.rendered_at - held.rendered_in
    return Facts(
        prepare=_span(held.lease.leased_at, held.prompted_at),
        queue=_span(held.prompted_at, began if held.rendered_at else 0.0),
        render=held.rendered_in or None,
        deliver=_span(held.rendered_at, now),
        total=max(now - held.lease.leased_at, 0.0),
        size=held.size,
    )


def tell(held: Held, outcome: Outcome, facts: Facts) -> None:
    """The one line that a task has at INFO, and its metrics."""
    end = ending(held, outcome)
    metrics.TASKS.labels(held.workflow or "unknown", end).inc()
    if end == "done":
        metrics.LAST_DONE.set_to_current_time()
    for stage in ("prepare", "queue", "render", "deliver", "total"):
        if (seconds := getattr(facts, stage)) is not None and held.workflow:
            metrics.STAGE_SECONDS.labels(stage, held.workflow).observe(seconds)
    log.info(
        f"task_{end}",
        task_id=held.lease.task_id,
        workflow=held.workflow,
        seed=held.seed,
        prepare_s=_rounded(facts.prepare),
        queue_s=_rounded(facts.queue),
        render_s=_rounded(facts.render),
        upload_s=_rounded(outcome.upload_latency) if outcome.success else None,
        total_s=_rounded(facts.total),
        mb=round(facts.size / 1e6, 2) if facts.size else None,
        ignored=list(held.ignored) or None,
        reason=_QUOTED.sub("'…'", outcome.msg) or None,
    )


def tell_lost(held: Held, *, now: float) -> None:
    """The same for a task that the sequencer took away: nothing is owed."""
    metrics.TASKS.labels(held.workflow or "unknown", "lost").inc()
    log.info(
        "task_lost",
        task_id=held.lease.task_id,
        workflow=held.workflow,
        total_s=_rounded(now - held.lease.leased_at),
        reason="the sequencer took it away",
    )


def _span(begin: float, end: float) -> float | None:
    return max(end - begin, 0.0) if begin and end else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
