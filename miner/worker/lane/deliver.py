"""The deliver loop: converts ComfyUI's output, uploads it and answers the task, while the GPU renders the next one.

Retries uploads until the task's time is over. Between results, it cleans up after finished tasks.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from miner.comfy.client import ComfyDown, ComfyRefused, DiskFault
from miner.comfy.host import ComfyHost
from miner.media.outputs import finish
from miner.media.uploads import Uploader, object_key, presigned_key
from miner.net.egress import NetworkFault
from miner.task.errors import JobFault, LeaseLost, MachineFault, Retryable
from miner.task.ledger import Ledger
from miner.task.policy import backoff
from miner.task.stages import Answered, Lease, Media, PresignedPut, Prompted, Rendered, TaskInHand, Uploaded
from miner.telemetry import clock, metrics
from miner.telemetry.liveness import IDLE, REMOTE, TURN, Liveness
from miner.telemetry.sizes import gb
from miner.worker.lane.again import Again
from miner.worker.lane.answers import Answers, success
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.cleanup import Cleanup
from miner.worker.lane.shutdown import Shutdown
from miner.worker.lane.task_log import short

log = structlog.get_logger()

TRIES = 4  # to get a result from a ComfyUI that answers with errors
NEXT_PROMPT = 0.03  # seconds from an answer to the next prompt, about
LATE = 60.0  # seconds past the deadline in which to retry an upload


class _Stopping(Exception):
    """The worker ends; the next start goes on from the journal."""


@dataclass(slots=True, kw_only=True)
class Deliver:
    """One lane's deliver loop; `run` ends after the ledger has."""

    ledger: Ledger
    answers: Answers
    again: Again
    cleanup: Cleanup
    host: ComfyHost
    capabilities: Capabilities
    uploader: Uploader
    shutdown: Shutdown
    prefix: str
    clock: Callable[[], float] = clock.now
    says: str = "waiting for a result"  # one sentence in the present tense
    liveness: Liveness = field(default_factory=Liveness)
    _rng: random.Random = field(default_factory=random.Random)

    def run(self) -> None:
        while (task := self._next()) is not None:
            with self.answers.guard(task.task_id, loop="deliver"):
                self._deliver_or_answer(task)
            self._keep_up()
            self.says = "waiting for a result"
            self.liveness.beat(IDLE)
        self.cleanup.run_rest()
        self.says = "stopped"

    def _keep_up(self) -> None:
        """With results that come faster than the pauses between them, cleanup would never have its turn."""
        for _ in range(2):
            if self.cleanup.late:
                self.cleanup.run_next()

    def _next(self) -> TaskInHand | None:
        """The next result. Cleanup waits until ComfyUI has the next prompt, or there is none for some time."""
        while True:
            version = self.ledger.version
            if (task := self.ledger.first(Rendered)) is not None:
                return task
            if self.ledger.ended:
                return None
            due = self.cleanup.next_in()
            pause = None if due is None else max(due, NEXT_PROMPT)
            self.ledger.wait(pause, Rendered, Prompted, Answered, since=version)
            if due is None or self.ledger.first(Rendered) is not None:
                continue
            if self.ledger.version == version or self.ledger.first(Prompted) is not None:
                self.cleanup.run_next()

    def _deliver_or_answer(self, task: TaskInHand) -> None:
        rendered = task.stage
        if not isinstance(rendered, Rendered):
            return
        try:
            self._deliver(task.task_id, rendered)
        except LeaseLost:
            self.answers.lost(task.task_id)
        except JobFault as fault:
            self.capabilities.pauses.ended_badly(rendered.job.workflow, task_id=task.task_id, reason=fault.message)
            self.answers.fail(task.task_id, fault.message)
        except MachineFault as fault:  # the output is gone, or broken
            self.again.spoiled(task, rendered.job, fault)

    def _deliver(self, task_id: str, rendered: Rendered) -> None:
        uploaded = self._upload(task_id, rendered)
        if uploaded is None:
            self.ledger.leave(task_id)
            return
        self.ledger.advance(task_id, uploaded, recorded=False)  # with the answer
        self.capabilities.pauses.succeeded(rendered.job.workflow)
        self.says = f"answering {short(task_id)}"
        self.liveness.beat(REMOTE)
        self.answers.answer(success(task_id, uploaded))

    # ---- uploading --------------------------------------------------------------------------------

    def _upload(self, task_id: str, rendered: Rendered) -> Uploaded | None:
        """Upload, with retries. None: shutting down; the next start continues from the journal."""
        attempt = 0
        while True:
            lease = self._lease(task_id)
            try:
                uploaded = self._try(rendered, lease)
            except _Stopping:
                return None
            except (Retryable, ComfyDown, ComfyRefused, DiskFault, NetworkFault) as error:
                attempt += 1
                if isinstance(error, ComfyRefused) and (not error.passing or attempt == TRIES):
                    raise
                retry_after = error.retry_after or 0.0 if isinstance(error, Retryable) else 0.0
                pause = backoff(attempt, rng=self._rng, cap=30.0, at_least=retry_after)
                metrics.RETRIES.labels("upload").inc()
                self.liveness.beat(pause + TURN)
                if self.clock() + pause > rendered.job.deadline + LATE:
                    if isinstance(error, MachineFault):  # ComfyUI, the disk or the network: ours, and told so
                        raise
                    raise JobFault("the result could not be uploaded in time") from error
                log.warning("upload_failed", task_id=task_id, reason=error.message, next=f"retrying in {pause:.1f} s")
                if self.shutdown.aborting.wait(pause):
                    return None
            else:
                if self._lease(task_id) is lease:  # else leased again, with another upload target
                    return uploaded

    def _lease(self, task_id: str) -> Lease:
        """The current lease. Raises LeaseLost."""
        task = self.ledger.get(task_id)
        if task is None or task.taken_away:
            raise LeaseLost("taken away by the sequencer")
        return task.lease

    def _try(self, rendered: Rendered, lease: Lease) -> Uploaded:
        manifest = self.capabilities.library.get(rendered.job.workflow).manifest
        output = manifest.output
        self.says = f"converting the result of {short(lease.task_id)}"
        self.liveness.beat(REMOTE)
        folder = self.ledger.folder / rendered.prompt_id
        try:
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise DiskFault(f"no folder for the result: {error.strerror or error}") from error
        source = self.host.fetch(rendered.files[0], folder)
        quality = rendered.job.values.get(output.quality_parameter)
        media = finish(
            source,
            format=output.format,
            quality=int(quality) if quality is not None else None,
            max_pixels=output.max_pixels,
            mark=manifest.marked,
            watch=partial(self._may_go_on, lease.task_id, rendered.job.deadline + LATE),
        )
        begun = self.clock()
        key = self._put(rendered, lease, media, format=output.format)
        self.cleanup.finished[lease.task_id] = media.path
        metrics.OUTPUT_BYTES.inc(media.size)
        return Uploaded(
            job=rendered.job,
            key=key,
            size=media.size,
            inference_latency=rendered.inference_latency,
            upload_latency=self.clock() - begun,
        )

    def _may_go_on(self, task_id: str, until: float) -> None:
        """Raises what ends a conversion: LeaseLost, _Stopping, or JobFault when the task's time is over."""
        self.liveness.beat(REMOTE)
        self._lease(task_id)
        if self.shutdown.state == "aborting":
            raise _Stopping
        if self.clock() >= until:
            raise JobFault("the result could not be converted in time")

    def _put(self, rendered: Rendered, lease: Lease, media: Media, *, format: str) -> str:  # noqa: A002  # S3's word
        """Upload it; returns the object's key."""
        target = lease.target
        if target is None:
            raise JobFault("the task has no upload target")
        key = (
            self._presigned_key(target, lease, format)
            if isinstance(target, PresignedPut)
            else object_key(
                prefix=self.prefix,
                workflow=rendered.job.workflow,
                miner_id=self.ledger.miner_id,
                task_id=lease.task_id,
                format=format,
            )
        )
        within = rendered.job.deadline + LATE - self.clock()
        self.uploader.upload(media, target, key=key, within=within, progress=self._progress)
        return key

    def _presigned_key(self, target: PresignedPut, lease: Lease, format: str) -> str:  # noqa: A002  # as above
        """The URL's key; where the reply named a prefix, the name that other miners of the network answer with."""
        if target.prefix:
            return object_key(
                prefix="",
                workflow=target.prefix,
                miner_id=self.ledger.miner_id,
                task_id=lease.task_id,
                format=format,
            )
        return presigned_key(target, bucket=self.uploader.bucket)

    def _progress(self, sent: int, size: int) -> None:
        self.says = f"uploading {gb(sent)} of {gb(size)}"
        self.liveness.beat(REMOTE)
