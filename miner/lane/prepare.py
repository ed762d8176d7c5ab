"""The prepare loop: asks the sequencer while there is room, and turns a lease into a prompt in ComfyUI's queue.

Everything that can be wrong with a task is found here, before any GPU time is spent: each wrong one is answered with
its reason. It touches no running prompt.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from queue import Queue

import structlog

from miner.comfy.client import ComfyDown
from miner.comfy.follow import PromptLost, look
from miner.comfy.host import ComfyHost, folder_of
from miner.errors import JobFault, LeaseLost, MachineFault, Retryable
from miner.inputs import Fetcher
from miner.job import Graph, Job, Lease, Outcome, Prompt, Rendered
from miner.journal import Journal
from miner.lane.desk import Desk
from miner.lane.disk import Disk
from miner.lane.offer import Offer
from miner.lane.signals import Signals
from miner.pictures import clean_image
from miner.policy import backoff, idle_delay

log = structlog.get_logger()

COMPLAIN_EVERY = 60.0  # seconds between two lines about the same trouble
WAKE = 1.0  # seconds between two looks at what nobody tells of


@dataclass(slots=True, kw_only=True)
class Prepare:
    """One lane's prepare loop; `run` ends when the lane drains and no work is left."""

    desk: Desk
    host: ComfyHost
    offer: Offer
    journal: Journal
    fetcher: Fetcher
    signals: Signals
    disk: Disk
    out: Queue[Prompt | Rendered | None]
    poll_interval: float
    wait: float
    clock: Callable[[], float] = time.time
    says: str = "starting"
    _complaint: str = ""
    _complained_at: float = 0.0
    _failures: int = 0
    _rng: random.Random = field(default_factory=random.Random)

    def run(self) -> None:
        while True:
            version = self.desk.version
            work = self.desk.pop()
            if work is not None:
                self._work_on(work)
            elif not self.signals.draining.is_set():
                self._ask(version)
            elif self.desk.busy:  # what is in hand may come back to be prepared again
                self.says = "draining"
                self.desk.pause(WAKE, since=version)
            else:
                break
        self._farewell()
        self.says = "stopped"
        self.out.put(None)

    # ---- asking -----------------------------------------------------------------------------------

    def _ask(self, version: int) -> None:
        """One request, or one wait until a request makes sense again."""
        if not self.desk.has_room():
            self.desk.pause(WAKE, since=version)
            return
        ids = self.offer.ids(in_hand=self.desk.workflows)
        if (trouble := self._trouble(ids)) is not None:
            self.says = f"waiting: {trouble}"
            self._complain(trouble)
            self.desk.pause(WAKE, since=version)
            return
        idle = self.desk.holds == 0
        self.says = "waiting for a task" if idle else "looking for the next task"
        asked_at = self.clock()
        try:
            reply = self.desk.ask(ids, wait=self.wait if idle else 0.0)
        except Retryable as error:
            self._failed(error, version)
            return
        self._failures, self._complaint = 0, ""
        if reply.lease is None:
            honoured = reply.waited and self.clock() - asked_at >= 0.5 * self.wait
            if not (honoured and idle):
                self.desk.pause(idle_delay(self.poll_interval, rng=self._rng), since=version)

    def _farewell(self) -> None:
        """A request that the drain cut short may have leased a task: ask once more, for nothing new, so that one which
        never arrived is answered now and not after the next start."""
        if self._failures:
            with contextlib.suppress(Retryable):
                self.desk.ask(())

    def _trouble(self, ids: Collection[str]) -> str | None:
        """Why it would be wrong to ask for a task now, in a sentence."""
        if not self.host.ready.is_set():
            return f"ComfyUI is not ready ({self.host.trouble})"
        if self.disk.low():
            return f"less than {self.disk.least_gb:g} GB of disk are free"
        if not self.offer.runnable:
            return "no enabled workflow can run on this machine"
        if not ids:
            return "each workflow that can run is resting after faults of this machine"
        return None

    def _complain(self, trouble: str) -> None:
        """Say it once a minute, and at once when it is new."""
        if trouble != self._complaint or self.clock() - self._complained_at >= COMPLAIN_EVERY:
            self._complaint, self._complained_at = trouble, self.clock()
            reasons = {name: r[0].text for name, r in self.offer.verdicts.items() if r}
            log.warning("not_asking", reason=trouble, workflows=reasons or None, next="asking when that is over")

    def _failed(self, error: Retryable, version: int) -> None:
        self._failures += 1
        pause = backoff(self._failures, rng=self._rng, at_least=error.retry_after or 0.0)
        self.says = f"waiting for the sequencer: {error.message}"
        log.warning("no_answer", reason=error.message, hint=error.hint, next=f"asking again in {pause:.1f} s")
        self.desk.pause(pause, since=version)

    # ---- preparing --------------------------------------------------------------------------------

    def _work_on(self, work: Lease | Job) -> None:
        """A lease or, after a crash, a job that was checked before; ends in a queued prompt or in an answer."""
        lease = work.lease if isinstance(work, Job) else work
        self.says = f"preparing {lease.task_id}"
        try:
            job = work if isinstance(work, Job) else self._check(work)
            prompt = self._queue(job)
        except LeaseLost:
            self.desk.drop(lease.task_id)
        except JobFault as fault:
            log.info("task_refused", task_id=lease.task_id, reason=fault.message, next="answering it with the reason")
            self.desk.answer(Outcome(task_id=lease.task_id, success=False, msg=fault.message))
        else:
            self.desk.get(lease.task_id).prompted_at = self.clock()
            log.debug("task_step", task_id=lease.task_id, step="prompted", workflow=prompt.job.workflow)
            self.out.put(prompt)

    def _check(self, lease: Lease) -> Job:
        """Raises JobFault for anything that no miner could do."""
        if lease.fault:
            raise JobFault(lease.fault)
        if lease.target is None:
            raise JobFault("the task has neither an upload_url nor a credential, so its result has nowhere to go")
        workflow = self.offer.choose(lease)
        self.desk.get(lease.task_id).workflow = workflow.name
        checked = self.offer.check(workflow, lease)
        if checked.ignored:
            log.info("parameters_ignored", task_id=lease.task_id, names=list(checked.ignored))
        timeout = lease.timeout_seconds or workflow.manifest.timeout_seconds
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
            self._wait_for_comfy(job)
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
        self.says = f"fetching {name} of {job.task_id}"
        limit = self.offer.library.get(job.workflow).manifest.needs.max_pixels or 0
        picture, _size = clean_image(self.fetcher.fetch(url, name=name), max_pixels=limit, name=name)
        return picture

    def _fill(self, job: Job, prompt_id: str, pictures: dict[str, bytes]) -> Graph:
        names = {
            name: self.host.client.upload_image(data, f"{name}.png", subfolder=folder_of(prompt_id))
            for name, data in pictures.items()
        }
        workflow = self.offer.library.get(job.workflow)
        return workflow.fill(job.values, images=names, prefix=f"{folder_of(prompt_id)}/out")

    def _wait_for_comfy(self, job: Job) -> None:
        """Block until ComfyUI is ready. Raises LeaseLost, or JobFault when the task's time is over."""
        while True:
            if self.desk.get(job.task_id).gone.is_set():
                raise LeaseLost("taken away by the sequencer")
            if self.signals.aborting.is_set():
                raise JobFault("miner is shutting down")
            if self.clock() >= job.deadline:
                raise JobFault("the task's time ran out before the renderer was ready")
            if self.host.ready.wait(0.25):
                return

    def _record(self, write: Callable[[], None]) -> None:
        """A step that the disk does not take costs a repetition after a crash, not the task."""
        try:
            write()
        except MachineFault as fault:
            log.error("step_not_recorded", reason=fault.message, hint=fault.hint, next="going on")
