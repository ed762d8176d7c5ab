"""The warm-up: renders a smallest task of each workflow at startup, so that the first consumer does not wait for 20 GB
of weights. Failures are only logged."""

from __future__ import annotations

import io
import threading
import time
import uuid

import structlog
from PIL import Image

from miner.comfy.follow import follow
from miner.comfy.host import ComfyHost, folder_of
from miner.task.errors import JobFault, MachineFault
from miner.worker.lane.capabilities import Capabilities
from miner.workflows import Workflow

log = structlog.get_logger()

PICTURE = (64, 64)  # pixels


def warm_up(host: ComfyHost, capabilities: Capabilities, *, stop: threading.Event) -> None:
    """Render the smallest task of each runnable workflow; blocks, and ends early when `stop` is set.

    The last one stays in memory, so the order is the reverse of `enabled`.
    """
    for name in reversed(capabilities.runnable):
        if stop.is_set():
            return
        began = time.monotonic()
        try:
            status = _render(host, capabilities, capabilities.library.get(name), stop)
        except (JobFault, MachineFault) as fault:
            log.warning(
                "warmup_failed", workflow=name, reason=fault.message, next="continuing; its first task may fail, too"
            )
        else:
            log.info("warmed_up", workflow=name, status=status, seconds=round(time.monotonic() - began, 1))


def _render(host: ComfyHost, capabilities: Capabilities, workflow: Workflow, stop: threading.Event) -> str:
    def tick() -> None:
        host.check()
        if stop.is_set():
            raise MachineFault("the miner is stopping")

    prompt_id = str(uuid.uuid4())
    checked = workflow.check(
        workflow.example(loras=capabilities.loras, image="https://localhost/", smallest=True), loras=capabilities.loras
    )
    images = {
        name: host.client.upload_image(_picture(), f"{name}.png", subfolder=folder_of(prompt_id))
        for name in checked.images
    }
    graph = workflow.fill(checked.values, images=images, prefix=f"{folder_of(prompt_id)}/out")
    host.client.submit(graph, prompt_id)
    try:
        history = follow(host.client, host.stream, prompt_id, tick=tick, on_event=lambda _event: None)
    finally:
        host.discard(prompt_id)
    if history.error is not None:
        raise MachineFault(f"{history.error.exception_type} in {history.error.node_type}")
    return history.status


def _picture() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(PICTURE).convert("RGB").save(out, "PNG")
    return out.getvalue()
