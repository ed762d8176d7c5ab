"""The prepare loop: polls for leases and turns each into a prompt in ComfyUI's queue.

Checks tasks before they use the GPU, and answers wrong ones with the reason. What fails after that is this machine's
fault. Touches no running prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from miner.comfy.client import ComfyDown, ComfyRefused, PromptRefused
from miner.comfy.follow import PromptLost, look
from miner.comfy.host import ComfyHost, folder_of
from miner.media.alpha import has_alpha
from miner.media.inputs import Fetcher
from miner.media.pictures import clean_image
from miner.media.uploads import Uploader
from miner.task.blame import told
from miner.task.errors import JobFault, LeaseLost, MachineFault
from miner.task.ledger import Ledger
from miner.task.policy import MAX_SECONDS, backoff, deadline_of
from miner.task.prompt_ids import new_prompt_id
from miner.task.stages import Graph, Job, Lease, Leased, Prepared, Prompted, TaskInHand, UploadTarget
from miner.telemetry import clock, metrics
from miner.telemetry.liveness import REMOTE, Liveness
from miner.telemetry.log import cut
from miner.worker.lane.again import AWAY, NOT_READY, Again
from miner.worker.lane.answers import Answers
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.loras import Loras
from miner.worker.lane.poll import WAKE, Poll
from miner.worker.lane.previews import Previews
from miner.worker.lane.shutdown import SHUTTING_DOWN, Shutdown
from miner.worker.lane.task_log import short
from miner.worker.lane.verdict import redacted

T = TypeVar("T")

log = structlog.get_logger()

UNDELAYED_REFUSALS = 5  # wrong tasks in a row to answer without a pause
TRIES = 4  # of one step, with faults of this machine that may pass
DETAILS = 2000  # characters of ComfyUI's refusal in the log
PAUSE = 1.0  # seconds at most before the second


@dataclass(slots=True, kw_only=True)
class Prepare:
    """One lane's prepare loop; `run` ends when the lane drains and all tasks in hand are answered."""

    ledger: Ledger
    answers: Answers
    again: Again
    host: ComfyHost
    capabilities: Capabilities
    fetcher: Fetcher
    shutdown: Shutdown
    uploader: Uploader
    poll: Poll
    previews: Previews
    loras: Loras
    liveness: Liveness
    doubt: Callable[[str], None]  # ComfyUI may have this prompt, and nobody will follow it
    clock: Callable[[], float] = clock.now
    doing: str = ""  # unless polling
    _refusals: int = 0  # in a row
    _rng: random.Random = field(default_factory=random.Random)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        waits = any(task.job is not None and self.loras.is_coming(task.job) for task in self.ledger.view())
        return self.doing or ("waiting for a LoRA" if waits else self.poll.says)

    def run(self) -> None:
        while True:
            self.liveness.beat()
            version = self.ledger.version
            if (task := self._next()) is not None:
                with self.answers.guard(task.task_id, loop="prepare"):
                    self._prepare_or_answer(task)
            elif self.shutdown.state == "running":
                self.doing = ""
                self.poll.once(version)
            elif self.ledger.busy:  # tasks may have to be prepared again
                self.doing = "draining"
                self.ledger.wait(WAKE, since=version)
            elif self._nothing_comes():
                break
        self.doing = "stopped"
        self.ledger.end()

    def _next(self) -> TaskInHand | None:
        """The first task that can go on: one that waits for its LoRA lets the others pass."""
        tasks = [task for kind in (Prepared, Leased) for task in self.ledger.view() if isinstance(task.stage, kind)]
        return next((task for task in tasks if not self._waits(task)), None)

    def _waits(self, task: TaskInHand) -> bool:
        if task.job is None or task.taken_away or self.shutdown.state == "aborting":
            return False
        return self.loras.is_coming(task.job) and self.clock() < self._last_moment(task, task.job)

    def _last_moment(self, task: TaskInHand, job: Job) -> float:
        """When its LoRA has to be there: the usual render has to fit in after it, if that leaves half of the time."""
        usual = self.capabilities.usual_seconds(job.workflow) or 0.0
        return job.deadline - min(usual, (job.deadline - task.lease.leased_at) / 2)

    def _nothing_comes(self) -> bool:
        """Whether no request can bring another lease; one that did is worked on."""
        self.liveness.beat(REMOTE)
        self.poll.collect_lost_lease()
        return self.poll.gate.close()

    def _prepare_or_answer(self, task: TaskInHand) -> None:
        self.doing = f"preparing {short(task.task_id)}"
        try:
            self._prepare(task)
        except LeaseLost:
            self.answers.lost(task.task_id)
        except JobFault as fault:
            self.answers.fail(task.task_id, fault.message)
            self._refused()
        except MachineFault as fault:
            self._spoiled(task.task_id, fault)
        else:
            self._refusals = 0

    def _spoiled(self, task_id: str, fault: MachineFault) -> None:
        task = self.ledger.get(task_id)
        if task is None or task.job is None:
            raise fault
        if isinstance(fault, PromptRefused):
            details = cut(redacted(task.job, fault.details), DETAILS)
            log.error(
                "graph_refused", task_id=task_id, details=details, next="checking the workflow against ComfyUI again"
            )
        self.again.spoiled(task, task.job, fault)

    def _refused(self) -> None:
        """Slow down a flood of wrong tasks."""
        self._refusals += 1
        if self._refusals > UNDELAYED_REFUSALS:
            self.shutdown.draining.wait(backoff(self._refusals - UNDELAYED_REFUSALS, rng=self._rng, base=0.1, cap=5.0))

    # ---- preparing --------------------------------------------------------------------------------

    def _prepare(self, task: TaskInHand) -> None:
        """Put a task, new or to be rendered again, into ComfyUI's queue."""
        self.liveness.beat(REMOTE)
        self._wait_for_comfy(task.task_id, deadline_of(task.job or task.lease))  # which sets the capabilities
        stage = task.stage
        if not isinstance(stage, Prepared):
            stage = self._check(task.lease)
        loras = self._try(task.task_id, stage.job, partial(self.loras.ready, stage.job))
        if loras is None:
            if self.clock() >= self._last_moment(task, stage.job):
                raise JobFault(self.loras.late(stage.job))
            return
        self._queue(task.task_id, stage, loras)
        self.ledger.note(task.task_id, queued_at=self.clock())
        log.debug("task_step", task_id=task.task_id, step="prompted", workflow=stage.job.workflow)

    def _check(self, lease: Lease) -> Prepared:
        """Check a lease. Raises JobFault."""
        if lease.fault:
            raise JobFault(lease.fault)
        if lease.target is None:
            raise JobFault("the task has neither an upload_url nor a credential for its result")
        workflow = self.capabilities.choose(lease)
        self.ledger.note(lease.task_id, workflow=workflow.name)
        self._check_target(lease, lease.target, workflow.name)
        checked = self.capabilities.check(workflow, lease)
        usual = workflow.manifest.timeout_seconds
        timeout = min(lease.timeout_seconds or usual, max(usual, MAX_SECONDS))
        job = Job(
            workflow=workflow.name,
            values=checked.values,
            images=checked.images,
            deadline=lease.leased_at + timeout,
        )
        stage = Prepared(job=job, prompt_id=new_prompt_id(self.ledger.miner_id))
        self.ledger.advance(
            lease.task_id,
            stage,
            recorded=bool(checked.images),  # else nothing is uploaded before the prompt, which is recorded
            seed=checked.values.get("seed"),
            ignored=checked.ignored,
        )
        return stage

    def _check_target(self, lease: Lease, target: UploadTarget, workflow: str) -> None:
        """Before the GPU works for nothing. Raises JobFault; stops leasing if every task would fail alike."""
        try:
            self.uploader.check(target)
        except MachineFault as fault:
            log.error(
                "cannot_upload",
                task_id=lease.task_id,
                reason=fault.message,
                hint=fault.hint,
                next="refusing it, and leasing no more until a later try succeeds",
            )
            self.capabilities.pauses.failed(workflow, fault, task_id=lease.task_id, attempts=0)
            raise JobFault(fault.told or told(fault.fault)) from fault

    def _queue(self, task_id: str, stage: Prepared, loras: dict[str, str]) -> None:
        """Fetch the inputs, fill the graph and submit it, across ComfyUI's restarts. `loras`: parameter → ComfyUI's
        name of one that was fetched."""
        job, prompt_id = stage.job, stage.prompt_id
        pictures = {
            name: self._try(task_id, job, partial(self._fetch, task_id, job, name, url))
            for name, url in job.images.items()
        }
        try:
            self._submit(task_id, stage, pictures, loras)
        except PromptRefused:
            raise
        except BaseException:
            task = self.ledger.get(task_id)
            if task is not None and isinstance(task.stage, Prompted):
                self.doubt(prompt_id)
            raise

    def _submit(self, task_id: str, stage: Prepared, pictures: dict[str, bytes], loras: dict[str, str]) -> None:
        job, prompt_id = stage.job, stage.prompt_id
        graph: Graph | None = None
        while True:
            self._wait_for_comfy(task_id, job.deadline)
            try:
                if graph is None:
                    graph = self._try(task_id, job, partial(self._fill, job, prompt_id, pictures, loras))
                    self.ledger.advance(task_id, Prompted(job=job, prompt_id=prompt_id))
                elif self._is_known(prompt_id):
                    return
                self.host.client.submit(graph, prompt_id, previews=self.previews.wanted(prompt_id))
            except ComfyDown as down:
                log.warning("comfyui_down", task_id=task_id, reason=down.message, next="retrying when it is ready")
                self.host.suspect(down.message)
            else:
                return

    def _try(self, task_id: str, job: Job, step: Callable[[], T]) -> T:
        """Repeat a step after faults of this machine that may pass: its network, or an error of ComfyUI's."""
        attempt = 0
        while True:
            self._may_go_on(task_id, job.deadline)
            try:
                return step()
            except MachineFault as fault:
                attempt += 1
                passing = fault.passing if isinstance(fault, ComfyRefused) else fault.fault == "network"
                if attempt == TRIES or not passing:
                    raise
                pause = backoff(attempt, rng=self._rng, base=PAUSE, at_least=PAUSE)
                log.warning(
                    "step_failed",
                    task_id=task_id,
                    reason=fault.message,
                    hint=fault.hint,
                    next=f"again in {pause:.1f} s",
                )
                self.liveness.beat(pause + REMOTE)
                self.shutdown.aborting.wait(pause)

    def _is_known(self, prompt_id: str) -> bool:
        """Whether a failed submission arrived: ComfyUI would run a second one, too."""
        try:
            look(self.host.client, prompt_id)
        except PromptLost:
            return False
        return True

    def _fetch(self, task_id: str, job: Job, name: str, url: str) -> bytes:
        self.doing = f"fetching {name} of {short(task_id)}"
        self.liveness.beat(REMOTE)
        workflow = self.capabilities.workflow(job.workflow)
        limit = workflow.manifest.needs.max_pixels or 0
        data = self.fetcher.fetch(url, name=name, within=job.deadline - self.clock())
        metrics.INPUT_BYTES.inc(len(data))
        watch = partial(
            self._may_go_on, task_id, job.deadline, late=f"{name}: the task's time ran out before it was decoded"
        )
        picture, size = clean_image(data, max_pixels=limit, alpha=workflow.transparency(name), name=name, watch=watch)
        workflow.judge_picture(name, size)
        return picture

    def _fill(self, job: Job, prompt_id: str, pictures: dict[str, bytes], loras: dict[str, str]) -> Graph:
        names = {
            name: self.host.client.upload_image(data, f"{name}.png", subfolder=folder_of(prompt_id))
            for name, data in pictures.items()
        }
        workflow = self.capabilities.workflow(job.workflow)
        return workflow.fill(
            {**job.values, **loras},
            images=names,
            prefix=f"{folder_of(prompt_id)}/out",
            transparent=any(map(has_alpha, pictures.values())),
        )

    def _wait_for_comfy(self, task_id: str, deadline: float) -> None:
        """Block until ComfyUI is ready. Raises LeaseLost, or JobFault when the task's time is over."""
        self._may_go_on(task_id, deadline)
        while not self.host.ready.wait(0.25):
            self._may_go_on(task_id, deadline)
            if self.host.gone_for_good(left=deadline - self.clock()):
                raise JobFault(AWAY)

    def _may_go_on(self, task_id: str, deadline: float, *, late: str = NOT_READY) -> None:
        """Raises LeaseLost, or JobFault when the task's time is over."""
        self.liveness.beat(REMOTE)
        task = self.ledger.get(task_id)
        if task is None or task.taken_away:
            raise LeaseLost("taken away by the sequencer")
        if self.shutdown.state == "aborting":
            raise JobFault(SHUTTING_DOWN)
        if self.clock() >= deadline:
            raise JobFault(late)
