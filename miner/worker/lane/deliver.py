"""The deliver loop: turns what ComfyUI wrote into the file that was asked for, uploads it and answers the task.

It works on disk and network while the GPU renders the next task. Uploads are repeated until the task's time is over;
an outcome is the outbox's as soon as it is known.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

import structlog

from miner.comfy.client import ComfyDown, DiskFault, OutputGone
from miner.comfy.host import ComfyHost
from miner.media.outputs import finish
from miner.media.thumbnail import thumbnail
from miner.media.uploads import Uploader, object_key, presigned_key
from miner.task.errors import JobFault, LeaseLost, MachineFault, Retryable
from miner.task.journal import Journal
from miner.task.policy import backoff
from miner.task.stages import Job, Lease, Media, Outcome, PresignedPut, Rendered, Uploaded, UploadTarget
from miner.telemetry import metrics
from miner.telemetry.liveness import IDLE, REMOTE, TURN, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.leases import Desk
from miner.worker.lane.shutdown import Signals
from miner.worker.lane.task_log import short

log = structlog.get_logger()

MAX_ATTEMPTS = 3  # renders of one task whose result was lost
NEXT_PROMPT = 0.03  # seconds from an answer to the next prompt, about
LATE = 60.0  # seconds past a task's deadline for which its finished file is still worth an upload


@dataclass(slots=True, kw_only=True)
class Deliver:
    """One lane's deliver loop; `run` ends after the render loop's last result."""

    desk: Desk
    host: ComfyHost
    capabilities: Capabilities
    journal: Journal
    uploader: Uploader
    signals: Signals
    results: Queue[Rendered | None]
    folder: Path  # for files on their way
    prefix: str
    thumbnails: bool  # whether to keep one of each finished picture, for the history
    clock: Callable[[], float] = time.time
    says: str = "waiting for a result"
    liveness: Liveness = field(default_factory=Liveness)
    _finished: Media | None = None  # the file of the task that is delivered, while it is there
    _answered: tuple[Outcome, str] | None = None  # the last task's, with its prompt id, until that is tidied up
    _rng: random.Random = field(default_factory=random.Random)

    def run(self) -> None:
        while (rendered := self._next()) is not None:
            self._deliver(rendered)
            self.says = "waiting for a result"
            self.liveness.beat(IDLE)
        self.says = "stopped"

    def _next(self) -> Rendered | None:
        """The next result. The last one's thumbnail is made once the next prompt has had its turn at the CPU."""
        if self._answered is None:
            return self.results.get()
        try:
            rendered = self.results.get(timeout=NEXT_PROMPT)
        except Empty:
            self._tidy(*self._answered)
            return self.results.get()
        self._tidy(*self._answered)
        return rendered

    def _deliver(self, rendered: Rendered) -> None:
        task_id = rendered.job.task_id
        held = self.desk.get(task_id)
        held.rendered_at = held.rendered_at or self.clock()  # after a restart nobody else has said so
        try:
            uploaded = self._upload(rendered)
        except LeaseLost:
            self.desk.drop(task_id)
            self.host.discard(rendered.prompt_id)
        except JobFault as fault:
            self._answer(Outcome(task_id=task_id, success=False, msg=fault.message), rendered)
        except OutputGone as gone:
            self._render_again(rendered, gone)
        except MachineFault as fault:
            log.error("delivery_failed", task_id=task_id, reason=fault.message, hint=fault.hint, next="answering it")
            msg = "this miner rendered the task, but could not read the result"
            self._answer(Outcome(task_id=task_id, success=False, msg=msg), rendered)
        else:
            if uploaded is not None:
                self._answer(success(uploaded), rendered)
            else:
                self.desk.release(task_id)  # the journal has it, and the next start delivers it
        finally:
            if self._answered is None:
                self._clear()

    def _answer(self, outcome: Outcome, rendered: Rendered) -> None:
        self.says = f"answering {short(outcome.task_id)}"
        self.liveness.beat(REMOTE)
        self.desk.answer(outcome)
        self._answered = (outcome, rendered.prompt_id)

    def _tidy(self, outcome: Outcome, prompt_id: str) -> None:
        """What is left to do for a task that was answered, and need not be done while the GPU waits for the next."""
        if outcome.success and self.thumbnails:
            self._keep_thumbnail(outcome.task_id)
        self.host.discard(prompt_id)
        self._clear()

    def _render_again(self, rendered: Rendered, gone: OutputGone) -> None:
        """What was rendered is not there any more: somebody cleaned up, or ComfyUI was set up anew."""
        job = rendered.job
        if self.desk.get(job.task_id).attempts < MAX_ATTEMPTS and self.clock() < job.deadline:
            log.warning("output_gone", task_id=job.task_id, reason=gone.message, next="rendering it again")
            self.desk.get(job.task_id).attempts += 1
            self.desk.put(job, first=True)
        else:
            self._answer(Outcome(task_id=job.task_id, success=False, msg="the result was lost on this miner"), rendered)

    def _keep_thumbnail(self, task_id: str) -> None:
        """After the answer, which waits for no picture."""
        if self._finished is None or (made := thumbnail(self._finished.path)) is None:
            return
        try:
            self.journal.pictured(
                self.desk.miner_id, task_id, width=made.width, height=made.height, thumbnail=made.webp
            )
        except MachineFault as fault:
            log.error("thumbnail_not_kept", task_id=task_id, reason=fault.message, next="the history goes without it")

    def _upload(self, rendered: Rendered) -> Uploaded | None:
        """Upload until it is done or pointless. None: shutting down, and the journal has it for the next start."""
        job, attempt = rendered.job, 0
        while True:
            held = self.desk.get(job.task_id)
            if held.gone.is_set():
                raise LeaseLost("taken away by the sequencer")
            lease = held.lease
            try:
                uploaded = self._try(rendered, lease)
            except (Retryable, ComfyDown, DiskFault) as error:
                attempt += 1
                retry_after = error.retry_after or 0.0 if isinstance(error, Retryable) else 0.0
                pause = backoff(attempt, rng=self._rng, cap=30.0, at_least=retry_after)
                metrics.RETRIES.labels("upload").inc()
                self.liveness.beat(pause + TURN)
                if self.clock() + pause > job.deadline + LATE:
                    raise JobFault("the result could not be uploaded in time") from error
                log.warning("upload_failed", task_id=job.task_id, reason=error.message, next=f"again in {pause:.1f} s")
                if self.signals.aborting.wait(pause):
                    return None
            else:
                if held.gone.is_set():
                    raise LeaseLost("taken away by the sequencer")
                if held.lease is not lease:
                    continue  # leased again meanwhile, with another place for the result
                self._record(uploaded)
                return uploaded

    def _try(self, rendered: Rendered, lease: Lease) -> Uploaded:
        output = self.capabilities.library.get(rendered.job.workflow).manifest.output
        self.says = f"converting the result of {short(rendered.job.task_id)}"
        self.liveness.beat(REMOTE)
        self._clear()
        source = self.host.fetch(rendered.files[0], self.folder)
        quality = rendered.job.values.get(output.quality_parameter)
        media = finish(source, format=output.format, quality=int(quality) if quality is not None else None)
        begun = self.clock()
        key = self._put(rendered.job, lease.target, media, format=output.format)
        self._finished = media
        held = self.desk.get(rendered.job.task_id)
        held.size, held.rendered_in = media.size, rendered.inference_latency
        metrics.OUTPUT_BYTES.inc(media.size)
        return Uploaded(
            job=rendered.job,
            key=key,
            size=media.size,
            inference_latency=rendered.inference_latency,
            upload_latency=self.clock() - begun,
        )

    def _clear(self) -> None:
        """Away with the copies of ours; what is in ComfyUI's folder goes with the prompt."""
        self._finished = self._answered = None
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)

    def _put(self, job: Job, target: UploadTarget | None, media: Media, *, format: str) -> str:  # noqa: A002  # S3's word
        """Upload it; gives the object's key."""
        if target is None:
            raise JobFault("the task has no upload target")
        key = (
            presigned_key(target)
            if isinstance(target, PresignedPut)
            else object_key(
                prefix=self.prefix,
                workflow=job.workflow,
                miner_id=self.desk.miner_id,
                task_id=job.task_id,
                format=format,
            )
        )
        self.uploader.upload(media, target, key=key, progress=self._progress)
        return key

    def _progress(self, sent: int, size: int) -> None:
        self.says = f"uploading {sent / 1e6:.0f} of {size / 1e6:.0f} MB"
        self.liveness.beat(REMOTE)

    def _record(self, uploaded: Uploaded) -> None:
        try:
            self.journal.uploaded(self.desk.miner_id, uploaded)
        except MachineFault as fault:
            log.error("step_not_recorded", task_id=uploaded.job.task_id, reason=fault.message, next="going on")


def success(uploaded: Uploaded) -> Outcome:
    """The answer to a task whose object is in the store."""
    return Outcome(
        task_id=uploaded.job.task_id,
        success=True,
        result=uploaded.key,
        inference_latency=uploaded.inference_latency,
        upload_latency=uploaded.upload_latency,
    )
