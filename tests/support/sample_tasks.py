"""A task of the tests that need one in hand, at each of its stages."""

from __future__ import annotations

from dataclasses import replace

from miner.task.stages import (
    Answered,
    Facts,
    Hold,
    Job,
    Lease,
    Leased,
    Outcome,
    OutputFile,
    Prepared,
    PresignedPut,
    Prompted,
    Rendered,
    TaskInHand,
    Uploaded,
)

ME = "0x0000000000000000000000000000000000000001"

LEASE = Lease(
    task_id="task-1",
    task_type="upscaler",
    workflow_id="4",
    parameters={"image": "https://example.org/a.png", "odd": ["\ud800", 1, None]},
    target=PresignedPut(url="https://store.example/out?signature=very-secret", headers={"x-a": "b"}),
    timeout_seconds=60.0,
    leased_at=1000.0,
)
JOB = Job(workflow="upscaler", values={"seed": 1, "x": 0.5, "on": True}, images={"image": "u"}, deadline=9.0)
OUTCOME = Outcome(task_id="task-1", success=True, result="out", inference_latency=1.5, upload_latency=0.5)
WAY = (
    Leased(),
    Prepared(job=JOB, prompt_id="p-1"),
    Prompted(job=JOB, prompt_id="p-1"),
    Rendered(
        job=JOB,
        prompt_id="p-1",
        files=(OutputFile(filename="a.png", subfolder="x", kind="output"),),
        inference_latency=1.5,
    ),
    Uploaded(job=JOB, key="out", size=7, inference_latency=1.5, upload_latency=0.5),
    Answered(outcome=OUTCOME, facts=Facts(render=1.5, size=7)),
)
"""A task's stages, in order."""


def task(stage=WAY[0], task_id="task-1", **facts):
    """A task in hand; `facts` are its fields."""
    lease = facts.pop("lease", replace(LEASE, task_id=task_id))
    return TaskInHand(lease=lease, stage=stage, hold=Hold(task_id=lease.task_id), **facts)
