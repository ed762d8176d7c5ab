"""The benchmark: how long a task of a workflow with default parameters takes here, cold and warm.

Cold is a render after ComfyUI unloaded its models; the warm ones follow it. Each has a new prompt, seed or picture, so
that ComfyUI's cache helps with nothing but the models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from miner.comfy.preflight import offered_loras
from miner.doctor.comfy_session import ComfySession
from miner.doctor.selftest import random_picture
from miner.doctor.trial_render import PICTURE_URL, RenderResult, failed, render, trial_render
from miner.machine.benchmarks import Measurement
from miner.task.errors import MinerError
from miner.workflows import Workflow

PICTURE_SIZE = (512, 512)  # pixels of an input picture: what upscalers get most often
SHORTEST = 0.001  # seconds; ComfyUI's own times are in whole milliseconds, and 0 s would not be a measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The result of one workflow: `measured`, or the render that failed."""

    workflow: str
    measured: Measurement | None = None
    failure: RenderResult | None = None


def measure(session: ComfySession, workflow: Workflow, *, runs: int, limit: float | None) -> Row:
    """One cold render and `runs` warm ones, each within `limit` seconds (None: the workflow's own). Blocks for all of
    them; raises ComfyDown if ComfyUI stops answering."""
    loras = offered_loras(session.machine([workflow]), base=workflow.lora_base)
    session.host.client.free()
    done: list[RenderResult] = []
    for number in range(1 + runs):
        one = _one(session, workflow, number, loras, limit or workflow.manifest.timeout_seconds)
        if not one.ok or one.seconds is None:
            return Row(workflow=workflow.name, failure=one)
        done.append(one)
    return Row(workflow=workflow.name, measured=measured(session, workflow.name, done))


def measured(session: ComfySession, name: str, done: Sequence[RenderResult]) -> Measurement:
    """`done`: the cold render, then the warm ones."""
    seconds = [max(one.seconds or 0.0, SHORTEST) for one in done]
    return Measurement(
        workflow=name,
        cold=round(seconds[0], 3),
        warm=round(fmean(seconds[1:]), 3),
        runs=len(done) - 1,
        peak_memory=max((one.peak_memory for one in done if one.peak_memory is not None), default=None),
        device=session.stats.device,
        comfyui=session.stats.version,
        at=time.time(),
    )


def _one(session: ComfySession, workflow: Workflow, number: int, loras: Sequence[str], limit: float) -> RenderResult:
    try:
        prompt = f"lighthouse number {number} by the sea"  # a new one, so that ComfyUI renders it
        parameters = workflow.example(loras=loras, image=PICTURE_URL, smallest=False, prompt=prompt)
        picture = random_picture(PICTURE_SIZE)
        trial = trial_render(session, workflow, parameters, loras=loras, picture=picture, limit=limit)
    except MinerError as error:
        return failed(workflow.name, workflow.manifest.output.format, error)
    return render(session, trial)
