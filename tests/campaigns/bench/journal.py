"""What the journal costs a task: every write of every step, the question that comes with a lease, and the thumbnail."""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import (
    Answered,
    Closed,
    Facts,
    Job,
    Lease,
    Outcome,
    OutputFile,
    Places,
    Prepared,
    PresignedPut,
    Prompted,
    Rendered,
    Stage,
    Uploaded,
)
from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found
from tests.campaigns.bench.testbed import BenchTestbed
from tests.support.testbed import MINER_ID


def measurements() -> Iterator[Measurement]:
    yield Measurement(
        cases=(
            Case(name="journal, all steps of a task, p50", unit="ms", at_most=5.0, digits=2),
            Case(name="journal, all steps of a task, mean", unit="ms", at_most=5.0, digits=2),
        ),
        measure=_journal,
    )


def _journal(testbed: BenchTestbed) -> Sequence[Found]:
    costs, folder = list[float](), testbed.fresh("journal")
    flush = _flush(folder)
    with closing(Journal(folder)) as journal:
        ledger = Ledger(miner_id=MINER_ID, journal=journal, folder=folder)
        for _ in range(100 if testbed.quick else 500):
            steps = _steps(ledger, journal, str(uuid.uuid4()))
            began = time.perf_counter()
            for step in steps:
                step()
            costs.append((time.perf_counter() - began) * 1000)
    p95 = sorted(costs)[int(0.95 * len(costs))]
    note = f"{len(steps)} calls a task, {len(costs)} tasks; p95 {p95:.2f} ms"
    most = f"at most {max(costs):.1f} ms; a bare flush of this disk takes {flush:.2f} ms"
    return Found(statistics.median(costs), note), Found(statistics.mean(costs), most)


def _flush(folder: Path) -> float:
    """Milliseconds that the disk takes to make one page safe, p50: others may be using it."""
    costs = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            costs.append((time.perf_counter() - began) * 1000)
    return statistics.median(costs)


def _steps(ledger: Ledger, journal: Journal, task_id: str) -> list[Callable[[], object]]:
    """A task's way through the journal, with records of a usual size."""
    lease = Lease(
        task_id=task_id,
        task_type="txt2img",
        workflow_id="3",
        parameters={"prompt": "a lighthouse in the evening, long exposure, " * 8, "lora_name": "style"},
        target=PresignedPut(url=f"https://store.example/results/{task_id}.jpg?X-Amz-Signature={'0' * 600}"),
        timeout_seconds=300.0,
        leased_at=time.time(),
    )
    values = {**lease.parameters, "width": 680, "height": 1024, "steps": 15, "guidance": 3.5, "seed": 1}
    job = Job(workflow="flux-lora", values=values, images={}, deadline=lease.leased_at + 300.0)
    prompt_id = str(uuid.uuid4())
    file = OutputFile(filename="out_00001_.png", subfolder=f"xalora/{prompt_id}", kind="output")
    uploaded = Uploaded(job=job, key=f"{task_id}.jpg", size=1, inference_latency=1.0, upload_latency=1.0)
    outcome = Outcome(task_id=task_id, success=True, result=uploaded.key, inference_latency=1.0, upload_latency=1.0)
    facts = Facts(prepare=0.1, queue=0.1, render=1.0, deliver=1.0, total=2.2, size=1)
    stages: list[Stage] = [
        Prepared(job=job, prompt_id=prompt_id),
        Prompted(job=job, prompt_id=prompt_id),
        Rendered(job=job, prompt_id=prompt_id, files=(file,), inference_latency=1.0),
        uploaded,
        Answered(outcome=outcome, facts=facts),
        Closed(verdict="acknowledged"),
    ]
    return [
        lambda: ledger.take(lease),
        *(partial(ledger.advance, task_id, stage, recorded=stage is not uploaded) for stage in stages),
        lambda: ledger.cleaned({task_id: Places()}),
        lambda: journal.record_thumbnail(MINER_ID, task_id, width=680, height=1024, thumbnail=bytes(4000)),
    ]
