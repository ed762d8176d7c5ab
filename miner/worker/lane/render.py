"""The render loop: follows each prompt to its end in ComfyUI, and keeps ComfyUI alive.

Prompts come in ComfyUI's own order, since the prepare loop queues them there. What ends badly (see `judge`) is acted
upon here: a wrong task is answered, a sick ComfyUI is restarted, a lost prompt is prepared again with its values.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, Queue

import structlog

from miner.comfy.client import ComfyDown
from miner.comfy.events import Ended, Event, Preview, Progress, Started
from miner.comfy.follow import WAKE, follow
from miner.comfy.host import TOO_LARGE, ComfyHost
from miner.comfy.replies import History
from miner.task.errors import JobFault, LeaseLost, MachineFault
from miner.task.journal import Journal
from miner.task.stages import Job, Outcome, Prompt, Rendered
from miner.telemetry import metrics
from miner.telemetry.liveness import IDLE, Liveness
from miner.worker.lane.cancel import Cancel
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.leases import Desk
from miner.worker.lane.shutdown import Signals
from miner.worker.lane.task_log import short
from miner.worker.lane.verdict import OutOfMemory, judge
from miner.worker.lane.warmup import warm_up

log = structlog.get_logger()

MAX_ATTEMPTS = 3  # renders of one task that this machine may spoil


class _PromptCame(Exception):  # no error: it ends a wait
    pass


@dataclass(slots=True, kw_only=True)
class Now:
    """What the lane renders at the moment, for people: replaced as a whole, so any thread may read it."""

    task_id: str = ""
    workflow: str = ""
    progress: Progress | None = None
    preview: Preview | None = None
    started_at: float | None = None  # Unix seconds of ComfyUI's `execution_start`


@dataclass(slots=True, kw_only=True)
class Render:
    """One lane's render loop; `run` ends after the prepare loop's last prompt."""

    desk: Desk
    host: ComfyHost
    capabilities: Capabilities
    journal: Journal
    signals: Signals
    prompts: Queue[Prompt | None]
    out: Queue[Rendered | None]
    interrupt_grace: float  # seconds
    stall: float  # seconds
    max_rss: float  # bytes; 0 is no limit
    warmup: bool
    clock: Callable[[], float] = time.time
    now: Now = field(default_factory=Now)
    lane: str = ""  # its name, for the metrics
    liveness: Liveness = field(default_factory=Liveness)
    _idle_since: float | None = None  # Unix seconds of the last prompt's end
    _started: dict[str, float] = field(default_factory=dict)  # prompt → Unix seconds of its start
    _ended: set[str] = field(default_factory=set)  # prompts whose end came before they were followed
    _cancel: Cancel = field(init=False)

    def __post_init__(self) -> None:
        self._cancel = Cancel(
            host=self.host, liveness=self.liveness, grace=self.interrupt_grace, clock=self.clock, on_event=self._note
        )

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        now = self.now
        if not self.host.ready.is_set():
            return f"waiting for ComfyUI: {self.host.trouble}"
        if not now.task_id:
            return "waiting for a prompt"
        if now.progress is None:
            return f"rendering {short(now.task_id)}"
        return f"rendering {short(now.task_id)} step {now.progress.value:.0f} of {now.progress.of:.0f}"

    def run(self) -> None:
        if self.warmup:
            self._warm_up()
        while (prompt := self._next()) is not None:
            self._render(prompt)
            self._keep_small()
        self.out.put(None)

    def _warm_up(self) -> None:
        """Before the first task: nothing is asked for meanwhile, since ComfyUI counts as not ready."""
        self._make_ready()
        self.host.suspect("warming up")
        warm_up(self.host, self.capabilities, stop=self.signals.draining)

    def _make_ready(self, tick: Callable[[], None] = lambda: None) -> None:
        """Wait for ComfyUI, reviving it where that is ours to do; then end there what was given up meanwhile."""
        if self.host.ready.is_set():
            return
        self.liveness.beat(IDLE)  # there is no knowing how long an operator leaves ComfyUI away
        self.host.ensure(self.signals.aborting, tick=tick)
        self.desk.wake()
        self._cancel.overdue()

    def _keep_small(self) -> None:
        """Between tasks: a ComfyUI of ours that has grown too large is restarted once nothing of ours is queued."""
        process = self.host.process
        if process is None:
            return
        process.tidy()
        if self.max_rss and process.rss_bytes() > self.max_rss:
            self.host.suspect(TOO_LARGE)  # so that nothing new is queued
            if self.prompts.empty():
                self.host.condemn(TOO_LARGE)

    def _next(self) -> Prompt | None:
        """The next prompt. Meanwhile the stream is read, since ComfyUI waits for slow readers; a prompt that arrives
        makes it speak, so this wakes at once."""
        while True:
            try:
                return self.prompts.get_nowait()
            except Empty:
                pass
            with contextlib.suppress(_PromptCame):
                self._make_ready(tick=self._look_for_a_prompt)
            self.liveness.beat()
            self._notice_a_death()
            if (event := self.host.stream.next(WAKE)) is not None:
                self._note(event)
            if self.signals.aborting.is_set():
                return self.prompts.get()

    def _notice_a_death(self) -> None:
        """A process that dies while nothing is to do: no task should be the one to find out."""
        try:
            self.host.check()
        except ComfyDown as down:
            if self.host.ready.is_set():
                self.host.condemn(down.message)

    def _look_for_a_prompt(self) -> None:
        """One that comes while ComfyUI is away may have no time left to wait for it."""
        if not self.prompts.empty():
            raise _PromptCame

    def _render(self, prompt: Prompt) -> None:
        job = prompt.job
        self.now = Now(task_id=job.task_id, workflow=job.workflow, started_at=self._started.get(prompt.prompt_id))
        self.desk.get(job.task_id).attempts += 1
        try:
            history = self._follow_or_give_up(prompt)
            rendered = self._result(prompt, history)
        except LeaseLost:
            self.desk.drop(job.task_id)
        except JobFault as fault:
            self.desk.answer(Outcome(task_id=job.task_id, success=False, msg=fault.message))
        except MachineFault as fault:
            self._try_again(prompt, fault)
        else:
            self.capabilities.rendered(job.workflow, seconds=rendered.inference_latency)
            self._record(rendered)
            self.desk.get(job.task_id).rendered_at = self.clock()
            self.desk.get(job.task_id).rendered_in = rendered.inference_latency
            self.liveness.beat(IDLE)
            log.debug("task_step", task_id=job.task_id, step="rendered")
            self.out.put(rendered)
        finally:
            self._started.pop(prompt.prompt_id, None)
            self._ended.discard(prompt.prompt_id)
            self.now = Now()

    # ---- one prompt -------------------------------------------------------------------------------

    def _follow_or_give_up(self, prompt: Prompt) -> History:
        """Follow it; when it must not go on, see that it ends in ComfyUI too before saying so."""
        try:
            return self._follow(prompt)
        except (LeaseLost, JobFault) as reason:
            log.info("prompt_cancelled", task_id=prompt.job.task_id, reason=reason.message)
            self._cancel.now(prompt.prompt_id)
            raise

    def _follow(self, prompt: Prompt) -> History:
        """Follow it through ComfyUI's hiccups. Raises what ends it early."""
        while True:
            self._make_ready(tick=lambda: self._tick(prompt.job, alive=False))
            try:
                return follow(
                    self.host.client,
                    self.host.stream,
                    prompt.prompt_id,
                    tick=lambda: self._tick(prompt.job),
                    on_event=self._note,
                    look_first=not prompt.graph or prompt.prompt_id in self._ended,
                    stall=self.stall,
                )
            except ComfyDown as down:
                self.host.condemn(down.message)

    def _tick(self, job: Job, *, alive: bool = True) -> None:
        self.liveness.beat()
        if self.desk.get(job.task_id).gone.is_set():
            raise LeaseLost("taken away by the sequencer")
        if self.signals.aborting.is_set():
            raise JobFault("miner is shutting down")
        if self.clock() >= job.deadline:
            raise JobFault("the task's time ran out while it was rendered; ask for less, or allow more time")
        if alive:
            self.host.check()

    def _note(self, event: Event) -> None:
        if isinstance(event, Started):
            self._started[event.prompt_id] = self.clock()
            self.now.started_at = self.clock()
            if self._idle_since is not None:
                metrics.IDLE_GAP_SECONDS.labels(self.lane).observe(max(self.clock() - self._idle_since, 0.0))
        elif isinstance(event, Progress):
            self.now.progress = event
            log.debug("task_progress", task_id=self.now.task_id, value=event.value, of=event.of, done=event.done)
        elif isinstance(event, Preview):
            self.now.preview = event
        elif isinstance(event, Ended):
            self._ended.add(event.prompt_id)
            self._idle_since = self.clock()

    def _result(self, prompt: Prompt, history: History) -> Rendered:
        """What it made. Raises JobFault where the task is to blame, MachineFault where this machine is."""
        job = prompt.job
        node = self.capabilities.library.get(job.workflow).manifest.output.node
        files = judge(prompt, history, node=node, host=self.host)
        begun = self._started.get(prompt.prompt_id, self.now.started_at or self.clock())
        return Rendered(
            job=job, prompt_id=prompt.prompt_id, files=files, inference_latency=max(self.clock() - begun, 0.0)
        )

    def _try_again(self, prompt: Prompt, fault: MachineFault) -> None:
        """This machine spoiled the render: prepare it again, unless that happened too often."""
        job, memory = prompt.job, isinstance(fault, OutOfMemory)
        asked_for_more = memory and self.capabilities.asks_for_more(job)
        if not asked_for_more:
            self.capabilities.failed(job.workflow, reason=fault.message, memory=memory and self._attempts(job) > 1)
        if self._attempts(job) < (2 if memory else MAX_ATTEMPTS):
            log.warning("render_spoiled", task_id=job.task_id, reason=fault.message, hint=fault.hint, next="once more")
            metrics.RETRIES.labels("render").inc()
            self.desk.put(job, first=True)
            return
        log.error("render_failed", task_id=job.task_id, reason=fault.message, hint=fault.hint, next="answering it")
        msg = (
            "the task needs more video memory than this miner has; ask for a smaller picture or fewer frames"
            if asked_for_more
            else "this miner's renderer failed on the task; please create it again"
        )
        self.desk.answer(Outcome(task_id=job.task_id, success=False, msg=msg))

    def _attempts(self, job: Job) -> int:
        return self.desk.get(job.task_id).attempts

    def _record(self, rendered: Rendered) -> None:
        try:
            self.journal.rendered(self.desk.miner_id, rendered)
        except MachineFault as fault:
            log.error("step_not_recorded", task_id=rendered.job.task_id, reason=fault.message, next="going on")
