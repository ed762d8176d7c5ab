"""What a heartbeat says of a task."""

from __future__ import annotations

from dataclasses import replace

from miner.task.stages import Hold, Job, Lease, Leased, Prepared, Progress, Prompted, Rendered, TaskInHand, Uploaded
from miner.worker.lane.standing import Standing

JOB = Job(workflow="w", values={}, images={}, deadline=9.0)
TASK = TaskInHand(
    lease=Lease.unknown("t", at=0.0), stage=Leased(), hold=Hold(task_id="t"), workflow="w", started_at=100.0
)
PROMPTED = replace(TASK, stage=Prompted(job=JOB, prompt_id="p"))


def at(share: float) -> Progress:
    """Of a graph of ten nodes."""
    return Progress(prompt_id="p", value=share * 10 % 1, of=1.0, done=int(share * 10), nodes=10)


def told(standing: Standing, task: TaskInHand) -> tuple[str, float, float | None]:
    (said,) = standing.of([task])
    assert said.pop("task_id") == "t"
    return said.pop("stage"), said.pop("percent"), said.pop("eta_seconds", None)


def test_each_stage_in_turn() -> None:
    now = 100.0
    standing = Standing(nodes=lambda _name: 10, usual=lambda _name: None, clock=lambda: now)
    assert told(standing, TASK) == ("prepare", 0.0, None)
    assert told(standing, replace(TASK, stage=Prepared(job=JOB, prompt_id="p"))) == ("prepare", 0.0, None)
    assert told(standing, replace(PROMPTED, started_at=0.0)) == ("queue", 2.0, None)
    assert told(standing, PROMPTED) == ("render", 5.0, None)  # nothing to guess the end by
    now = 110.0
    assert told(standing, replace(PROMPTED, progress=at(0.5))) == ("render", 48.5, 10.0)
    assert told(standing, replace(PROMPTED, progress=at(0.2))) == ("render", 48.5, 40.0)  # it never falls
    rendered = Rendered(job=JOB, prompt_id="p", files=(), inference_latency=1.0)
    assert told(standing, replace(TASK, stage=rendered)) == ("deliver", 92.0, None)
    assert told(standing, PROMPTED)[1] == 92.0  # rendered again
    uploaded = Uploaded(job=JOB, key="k", size=1, inference_latency=1.0, upload_latency=1.0)
    assert told(standing, replace(TASK, stage=uploaded)) == ("deliver", 99.0, None)
    assert standing.of([]) == []
    assert told(standing, TASK)[1] == 0.0  # a new task of the same id


def test_the_end_is_guessed_by_what_is_usual_until_that_is_over() -> None:
    now = 104.0
    standing = Standing(nodes=lambda _name: 0, usual=lambda _name: 6.0, clock=lambda: now)
    assert told(standing, PROMPTED) == ("render", 5.0, 2.0)
    now = 120.0
    assert told(standing, replace(PROMPTED, progress=at(0.8)))[2] == 5.0
