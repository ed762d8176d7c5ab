"""Renders of our own: a workflow's smallest task, without a consumer.

The warm-up at startup, so that the first consumer does not wait for 20 GB of weights; and the trial of a workflow after
a pause, so that no consumer's task finds out that nothing has changed.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from miner.comfy.client import ComfyDown, ComfyFault
from miner.comfy.events import Event
from miner.comfy.follow import follow
from miner.comfy.host import ComfyHost, folder_of
from miner.task.errors import JobFault, LeaseLost, MachineFault
from miner.task.ledger import Ledger
from miner.task.prompt_ids import new_prompt_id
from miner.task.stages import Job, OutputFile, Prompted
from miner.telemetry.liveness import Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.shutdown import Shutdown
from miner.worker.lane.verdict import verdict
from miner.workflows import Workflow

log = structlog.get_logger()

WARMING_UP = "warming up"  # ComfyUI's trouble meanwhile, since nothing may be leased
PICTURE = (64, 64)  # pixels


@dataclass(slots=True, kw_only=True)
class OwnRenders:
    """One lane's; for its render loop only. Each blocks for one render, and ends early when the lane drains."""

    ledger: Ledger
    host: ComfyHost
    capabilities: Capabilities
    shutdown: Shutdown
    liveness: Liveness
    on_event: Callable[[Event], None]
    ask_anew: Callable[[], None]  # there is more to offer
    trying: str = ""  # the workflow on trial

    def warm_up(self) -> None:
        """Render each runnable workflow. The last one stays in memory, so the order is the reverse of `enabled`.

        Failures are only logged.
        """
        for name in reversed(self.capabilities.runnable):
            began = time.monotonic()
            try:
                self._render(self.capabilities.workflow(name))
            except LeaseLost:
                return
            except (JobFault, MachineFault) as fault:
                log.warning(
                    "warmup_failed",
                    workflow=name,
                    reason=fault.message,
                    next="continuing; its first task may fail, too",
                )
            else:
                log.info("warmed_up", workflow=name, seconds=round(time.monotonic() - began, 1))

    def try_paused(self) -> None:
        """Render a workflow whose pause is over, if any."""
        name = self.capabilities.pauses.due(self.capabilities.runnable)
        if name is None:
            return
        self.trying = name
        try:
            self._render(self.capabilities.workflow(name))
        except LeaseLost:
            return
        except ComfyDown as down:
            self.host.condemn(down.message)
            return
        except MachineFault as fault:
            self.capabilities.pauses.failed(name, fault, task_id="", attempts=1)
            return
        except JobFault as fault:
            log.info("trial_impossible", workflow=name, reason=fault.message, next="a consumer's task will tell")
        finally:
            self.trying = ""
        self.capabilities.pauses.tried(name)
        self.ask_anew()

    def _render(self, workflow: Workflow) -> None:
        """Render the smallest task and read its result. Raises LeaseLost when the lane drains, JobFault if there is no
        such task, MachineFault if it fails or takes longer than the workflow's time limit."""
        loras = self.capabilities.loras_for(workflow)
        example = workflow.example(loras=loras, image="https://localhost/", smallest=True)
        checked = workflow.check(example, loras=loras)
        job = Job(workflow=workflow.name, values=checked.values, images=checked.images, deadline=0.0)
        prompt = Prompted(job=job, prompt_id=new_prompt_id(self.ledger.miner_id))
        until = time.monotonic() + workflow.manifest.timeout_seconds

        def tick() -> None:
            self.liveness.beat()
            if self.shutdown.state != "running":
                raise LeaseLost("the miner is stopping")
            self.host.check()
            if time.monotonic() >= until:
                raise MachineFault(f"a render of our own took longer than {workflow.manifest.timeout_seconds:g} s")

        try:
            tick()
            self._submit(workflow, prompt)
            history = follow(self.host.client, self.host.stream, prompt.prompt_id, tick=tick, on_event=self.on_event)
            files = verdict("", prompt, history, output=workflow.manifest.output, host=self.host)
            self._read(files[0], self.ledger.folder / prompt.prompt_id)
        except BaseException:
            with contextlib.suppress(ComfyFault):
                self.host.client.cancel(prompt.prompt_id)
            raise
        finally:
            self.host.discard(prompt.prompt_id)

    def _submit(self, workflow: Workflow, prompt: Prompted) -> None:
        own = folder_of(prompt.prompt_id)
        images = {
            name: self.host.client.upload_image(_picture(), f"{name}.png", subfolder=own) for name in prompt.job.images
        }
        graph = workflow.fill(prompt.job.values, images=images, prefix=f"{own}/out")
        self.host.client.submit(graph, prompt.prompt_id)

    def _read(self, file: OutputFile, folder: Path) -> None:
        try:
            folder.mkdir(parents=True)
            self.host.fetch(file, folder)
        except OSError as error:
            raise MachineFault(f"no folder for the result: {error.strerror or error}", fault="disk") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _picture() -> bytes:
    """A gradient from black to white, as PNG, written here: the worker goes without Pillow."""
    width, height = PICTURE
    rows = b"".join(b"\0" + bytes((255 * row // height,)) * 3 * width for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
