"""Renders of our own: a smallest task of a workflow, without a consumer.

The warm-up at startup, so that the first consumer does not wait for 20 GB of weights; and the trial of a workflow after
a pause, so that no consumer's task finds out that nothing has changed.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import structlog
from PIL import Image

from miner.comfy.client import ComfyFault
from miner.comfy.events import Event
from miner.comfy.follow import follow
from miner.comfy.host import ComfyHost, folder_of
from miner.task.errors import JobFault, MachineFault
from miner.task.stages import Job, Prompted
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.verdict import verdict
from miner.workflows import Workflow

log = structlog.get_logger()

WARMING_UP = "warming up"  # ComfyUI's trouble meanwhile, since nothing may be leased
PICTURE = (64, 64)  # pixels


def warm_up(host: ComfyHost, capabilities: Capabilities, *, folder: Path, stop: threading.Event) -> None:
    """Render the smallest task of each runnable workflow; blocks, and ends early when `stop` is set.

    The last one stays in memory, so the order is the reverse of `enabled`. Failures are only logged.
    """

    def tick() -> None:
        if stop.is_set():
            raise MachineFault("the miner is stopping")

    for name in reversed(capabilities.runnable):
        if stop.is_set():
            return
        began = time.monotonic()
        try:
            render_smallest(host, capabilities, capabilities.library.get(name), folder=folder, tick=tick)
        except (JobFault, MachineFault) as fault:
            log.warning(
                "warmup_failed", workflow=name, reason=fault.message, next="continuing; its first task may fail, too"
            )
        else:
            log.info("warmed_up", workflow=name, seconds=round(time.monotonic() - began, 1))


def render_smallest(
    host: ComfyHost,
    capabilities: Capabilities,
    workflow: Workflow,
    *,
    folder: Path,
    tick: Callable[[], None],
    on_event: Callable[[Event], None] = lambda _event: None,
) -> None:
    """Render the workflow's smallest task and read its result, into a folder in `folder` that is deleted again.

    `tick` is called twice a second, and may raise to give up. Raises MachineFault if it fails, after at most the
    workflow's time limit.
    """
    until = time.monotonic() + workflow.manifest.timeout_seconds

    def watch() -> None:
        tick()
        host.check()
        if time.monotonic() >= until:
            raise MachineFault(f"a trial render took longer than {workflow.manifest.timeout_seconds:g} s")

    checked = workflow.check(
        workflow.example(loras=capabilities.loras, image="https://localhost/", smallest=True), loras=capabilities.loras
    )
    job = Job(workflow=workflow.name, values=checked.values, images=checked.images, deadline=0.0)
    prompt = Prompted(job=job, prompt_id=str(uuid.uuid4()))
    own = folder / prompt.prompt_id
    try:
        _submit(host, workflow, prompt)
        history = follow(host.client, host.stream, prompt.prompt_id, tick=watch, on_event=on_event)
        files = verdict("", prompt, history, node=workflow.manifest.output.node, host=host)
        own.mkdir(parents=True)
        host.fetch(files[0], own)
    except OSError as error:
        raise MachineFault(f"no folder for the result: {error.strerror or error}", fault="disk") from error
    except BaseException:
        with contextlib.suppress(ComfyFault):
            host.client.cancel(prompt.prompt_id)
        raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
        host.discard(prompt.prompt_id)


def _submit(host: ComfyHost, workflow: Workflow, prompt: Prompted) -> None:
    own = folder_of(prompt.prompt_id)
    images = {name: host.client.upload_image(_picture(), f"{name}.png", subfolder=own) for name in prompt.job.images}
    graph = workflow.fill(prompt.job.values, images=images, prefix=f"{own}/out")
    host.client.submit(graph, prompt.prompt_id)


def _picture() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(PICTURE).convert("RGB").save(out, "PNG")
    return out.getvalue()
