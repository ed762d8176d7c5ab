"""The prepare loop: turns each lease into a prompt in ComfyUI's queue, and asks for the next one.

Everything that can be wrong with a task is found here, before any GPU time is spent: each wrong one is answered with
its reason. It touches no running prompt.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import Queue

import structlog

from miner.comfy.client import ComfyDown
from miner.comfy.follow import PromptLost, look
from miner.comfy.host import ComfyHost, folder_of
from miner.media.inputs import Fetcher
from miner.media.pictures import clean_image
from miner.media.uploads import Uploader
from miner.task.errors import JobFault, LeaseLost, MachineFault
from miner.task.journal import Journal
from miner.task.policy import backoff
from miner.task.stages import Graph, Job, Lease, Outcome, Prompt
from miner.telemetry import metrics
from miner.telemetry.liveness import IDLE, REMOTE, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.leases import Desk
from miner.worker.lane.poll import WAKE, Poll
from miner.worker.lane.shutdown import Signals
from miner.worker.lane.task_log import short

log = structlog.get_logger()

LONGEST = 3600.0  # seconds that a task may take in all, unless its workflow's own limit is longer
FREE_REFUSALS = 5  # wrong tasks in a row that are answered without a pause


@dataclass(slots=True, kw_only=True)
class Prepare:
    """One lane's prepare loop; `run` ends when the lane drains and no work is left."""

    desk: Desk
    host: ComfyHost
    capabilities: Capabilities
    journal: Journal
    fetcher: Fetcher
    signals: Signals
    uploader: Uploader
    poll: Poll
    liveness: Liveness
    out: Queue[Prompt | None]
    clock: Callable[[], float] = time.time
    doing: str = ""  # while it is not asking
    _refusals: int = 0  # in a row
    _rng: random.Random = field(default_factory=random.Random)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        return self.doing or self.poll.says

    def run(self) -> None:
        while True:
            self.liveness.beat()
            version = self.desk.version
            work = self.desk.pop()
            if work is not None:
                self._work_on(work)
            elif not self.signals.draining.is_set():
                self.doing = ""
                self.poll.once(version)
            elif self.desk.busy:  # what is in hand may come back to be prepared again
                self.doing = "draining"
                self.desk.pause(WAKE, since=version)
            else:
                break
        self.poll.farewell()
        self.signals.aborting.set()  # nothing is left to interrupt: what still waits for ComfyUI waits in vain
        self.doing = "stopped"
        self.out.put(None)

    # ---- preparing --------------------------------------------------------------------------------

    def _work_on(self, work: Lease | Job) -> None:
        """A lease or, after a crash, a job that was checked before; ends in a queued prompt or in an answer."""
        lease = work.lease if isinstance(work, Job) else work
        self.doing = f"preparing {short(lease.task_id)}"
        self.liveness.beat(REMOTE)
        try:
            self._wait_for_comfy(lease.task_id, deadline_of(work))  # what can run is known once it is there
            job = work if isinstance(work, Job) else self._check(work)
            prompt = self._queue(job)
        except LeaseLost:
            self.desk.drop(lease.task_id)
        except JobFault as fault:
            self.desk.answer(Outcome(task_id=lease.task_id, success=False, msg=fault.message))
            self._refused()
        else:
            self._refusals = 0
            self.desk.get(lease.task_id).prompted_at = self.clock()
            log.debug("task_step", task_id=lease.task_id, step="prompted", workflow=prompt.job.workflow)
            self.liveness.beat(IDLE)
            self.out.put(prompt)

    def _refused(self) -> None:
        """Wrong tasks without end, which cost their maker nothing, are answered ever more slowly."""
        self._refusals += 1
        if self._refusals > FREE_REFUSALS:
            self.signals.draining.wait(backoff(self._refusals - FREE_REFUSALS, rng=self._rng, base=0.1, cap=5.0))

    def _check(self, lease: Lease) -> Job:
        """Raises JobFault for anything that no miner could do."""
        if lease.fault:
            raise JobFault(lease.fault)
        if lease.target is None:
            raise JobFault("the task has neither an upload_url nor a credential, so its result has nowhere to go")
        try:
            self.uploader.check(lease.target)
        except MachineFault as fault:
            log.error("cannot_upload", task_id=lease.task_id, reason=fault.message, hint=fault.hint, next="refusing it")
            raise JobFault("this miner is not set up for the task's upload target") from fault
        workflow = self.capabilities.choose(lease)
        held = self.desk.get(lease.task_id)
        held.workflow = workflow.name
        checked = self.capabilities.check(workflow, lease)
        held.seed, held.ignored = checked.values.get("seed"), checked.ignored
        usual = workflow.manifest.timeout_seconds
        timeout = min(lease.timeout_seconds or usual, max(usual, LONGEST))
        job = Job(
            lease=lease,
            workflow=workflow.name,
            values=checked.values,
            images=checked.images,
            deadline=lease.leased_at + timeout,
        )
        self._record(partial(self.journal.prepared, self.desk.miner_id, job))
        return job

    def _queue(self, job: Job) -> Prompt:
        """Fetch the inputs, fill the graph and put it into ComfyUI's queue, whatever ComfyUI does meanwhile."""
        pictures = {name: self._fetch(job, name, url) for name, url in job.images.items()}
        prompt_id = str(uuid.uuid4())
        prompt: Prompt | None = None
        while True:
            self._wait_for_comfy(job.task_id, job.deadline)
            try:
                if prompt is None:
                    graph = self._fill(job, prompt_id, pictures)
                    prompt = Prompt(job=job, prompt_id=prompt_id, graph=graph)
                    self._record(partial(self.journal.prompted, self.desk.miner_id, prompt))
                    self.host.client.submit(graph, prompt_id)
                elif not self._is_known(prompt_id):
                    self.host.client.submit(prompt.graph, prompt_id)
            except ComfyDown as down:
                log.warning("comfyui_down", task_id=job.task_id, reason=down.message, next="again when it is ready")
                self.host.suspect(down.message)
            else:
                return prompt

    def _is_known(self, prompt_id: str) -> bool:
        """Whether a submission that failed had arrived all the same: ComfyUI would run a second one twice."""
        try:
            look(self.host.client, prompt_id)
        except PromptLost:
            return False
        return True

    def _fetch(self, job: Job, name: str, url: str) -> bytes:
        self.doing = f"fetching {name} of {short(job.task_id)}"
        self.liveness.beat(REMOTE)
        limit = self.capabilities.library.get(job.workflow).manifest.needs.max_pixels or 0
        data = self.fetcher.fetch(url, name=name)
        metrics.INPUT_BYTES.inc(len(data))
        picture, _size = clean_image(data, max_pixels=limit, name=name)
        return picture

    def _fill(self, job: Job, prompt_id: str, pictures: dict[str, bytes]) -> Graph:
        names = {
            name: self.host.client.upload_image(data, f"{name}.png", subfolder=folder_of(prompt_id))
            for name, data in pictures.items()
        }
        workflow = self.capabilities.library.get(job.workflow)
        return workflow.fill(job.values, images=names, prefix=f"{folder_of(prompt_id)}/out")

    def _wait_for_comfy(self, task_id: str, deadline: float) -> None:
        """Block until ComfyUI is ready. Raises LeaseLost, or JobFault when the task's time is over."""
        while True:
            self.liveness.beat(REMOTE)
            if self.desk.get(task_id).gone.is_set():
                raise LeaseLost("taken away by the sequencer")
            if self.signals.aborting.is_set():
                raise JobFault("miner is shutting down")
            if self.clock() >= deadline:
                raise JobFault("the task's time ran out before the renderer was ready")
            if self.host.ready.wait(0.25):
                return

    def _record(self, write: Callable[[], None]) -> None:
        """A step that the disk does not take costs a repetition after a crash, not the task."""
        try:
            write()
        except MachineFault as fault:
            log.error("step_not_recorded", reason=fault.message, hint=fault.hint, next="going on")


def deadline_of(work: Lease | Job) -> float:
    """Unix seconds; infinity for a lease whose workflow is yet to say."""
    if isinstance(work, Job):
        return work.deadline
    return work.leased_at + work.timeout_seconds if work.timeout_seconds else float("inf")
