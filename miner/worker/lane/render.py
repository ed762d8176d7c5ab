"""The render loop: follows each prompt to its end, in the order of ComfyUI's queue, and keeps ComfyUI alive.

After a failure (see `verdict`) it restarts a broken ComfyUI, and returns the task to prepare or answers it: `again`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import structlog

from miner.comfy.client import ComfyDown, ComfyRefused
from miner.comfy.events import Ended, Event, Preview, Started
from miner.comfy.follow import WAKE, PromptLost, follow
from miner.comfy.host import DEAF, TOO_LARGE, ComfyHost
from miner.comfy.leftovers import MOST_FILES
from miner.comfy.replies import History
from miner.task.errors import JobFault, LeaseLost, MachineFault
from miner.task.ledger import Ledger
from miner.task.stages import Job, Progress, Prompted, Rendered, TaskInHand
from miner.telemetry import clock, metrics
from miner.telemetry.liveness import IDLE, Liveness
from miner.worker.lane.again import AWAY, NOT_READY, Again
from miner.worker.lane.answers import Answers
from miner.worker.lane.cancel import Cancel
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.hearing import Hearing
from miner.worker.lane.own_renders import WARMING_UP, OwnRenders
from miner.worker.lane.previews import Previews
from miner.worker.lane.shutdown import SHUTTING_DOWN, Shutdown
from miner.worker.lane.task_log import short
from miner.worker.lane.verdict import verdict

log = structlog.get_logger()

STUCK = "the task's time ran out while this miner's renderer made no progress; please create it again, or ask for less"
OVERRAN = "the task's time ran out during the render; ask for less, or allow more time"


class _Woken(Exception):  # not an error: ends a wait
    pass


@dataclass(slots=True, kw_only=True)
class Render:
    """One lane's render loop; `run` ends after the ledger has."""

    ledger: Ledger
    answers: Answers
    again: Again
    host: ComfyHost
    capabilities: Capabilities
    shutdown: Shutdown
    interrupt_grace: float  # seconds
    stall: float  # seconds
    max_rss: float  # bytes; 0: unlimited
    warmup: bool
    ask_anew: Callable[[], None]  # the capabilities have changed
    previews: Previews
    clock: Callable[[], float] = clock.now
    lane: str = ""  # its name, for the metrics
    liveness: Liveness = field(default_factory=Liveness)
    preview: Preview | None = None  # the latest of the current render
    _task_id: str = ""  # of the current render; "" between renders
    _prompt_id: str = ""
    _idle_since: float | None = None  # Unix seconds of the last prompt's end
    _started: dict[str, float] = field(default_factory=dict)  # prompt → Unix seconds of its start
    _ended: set[str] = field(default_factory=set)  # prompts that ended before they were followed
    _cancel: Cancel = field(init=False)
    _hearing: Hearing = field(init=False)
    _own_renders: OwnRenders = field(init=False)

    def __post_init__(self) -> None:
        self._hearing = Hearing(host=self.host, clock=self.clock, on_event=self._note)
        self._own_renders = OwnRenders(
            ledger=self.ledger,
            host=self.host,
            capabilities=self.capabilities,
            shutdown=self.shutdown,
            liveness=self.liveness,
            on_event=self._note,
            ask_anew=self.ask_anew,
        )
        self._cancel = Cancel(
            host=self.host, liveness=self.liveness, grace=self.interrupt_grace, clock=self.clock, on_event=self._note
        )

    def doubt(self, prompt_id: str) -> None:
        """Cancel a prompt that ComfyUI may have although its submission failed. Any thread may call it."""
        self._cancel.doubt(prompt_id)
        self.ledger.wake()

    @property
    def busy(self) -> bool:
        """Whether a task is rendering."""
        return bool(self._task_id)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        if not self.host.ready.is_set():
            return f"waiting for ComfyUI: {self.host.trouble}"
        task = self.ledger.get(self._task_id)
        if task is None:
            trying = self._own_renders.trying
            return f"trying {trying} after its pause" if trying else "waiting for a prompt"
        if task.progress is None:
            return f"rendering {short(task.task_id)}"
        return f"rendering {short(task.task_id)} step {task.progress.value:.0f} of {task.progress.of:.0f}"

    def run(self) -> None:
        if self.warmup:
            self.warmup = False  # once, even if this loop is run again after a bug
            self._warm_up()
        while (task := self._next()) is not None:
            with self.answers.guard(task.task_id, loop="render"):
                self._render_or_answer(task)
            self._restart_between_tasks()
        self._cancel.last_words()

    def _warm_up(self) -> None:
        """Warm up before the first task; nothing is leased meanwhile, since ComfyUI is marked not ready."""
        self._make_ready()
        self.host.suspect(WARMING_UP)
        self._own_renders.warm_up()

    def _make_ready(self, tick: Callable[[], None] = lambda: None) -> None:
        """Wait for ComfyUI, starting a managed one."""
        if self.host.ready.is_set():
            return
        self.liveness.beat(IDLE)  # an external ComfyUI may stay down for any time
        self.host.ensure(self.shutdown.aborting, tick=tick)
        self.ledger.wake()

    def _restart_between_tasks(self) -> None:
        """Restart a managed ComfyUI that is too large or says nothing, once none of our prompts is queued."""
        process = self.host.process
        if process is None:
            return
        process.tidy()
        why = DEAF if self._hearing.restart_wanted else ""
        if self.max_rss and process.rss_bytes() > self.max_rss:
            why = TOO_LARGE
        if why:
            self.host.suspect(why)  # so that nothing new is queued
            if self.ledger.first(Prompted) is None:
                self._hearing.restart_wanted = False
                self.host.condemn(why)

    def _next(self) -> TaskInHand | None:
        """The next prompt. Reads the stream meanwhile, since ComfyUI waits for slow readers; a new prompt's event wakes
        it at once."""
        while not self.ledger.ended:
            version = self.ledger.version
            if (task := self.ledger.first(Prompted)) is not None:
                return task
            with contextlib.suppress(_Woken):
                self._make_ready(tick=self._look_for_a_prompt)
            self.liveness.beat()
            self.host.look_after()
            self._cancel.catch_up()
            if self.host.ready.is_set():
                self._own_renders.try_paused()
                if (event := self.host.stream.next(WAKE)) is not None:
                    self._note(event)
            else:  # aborting, with ComfyUI away
                self.ledger.wait(WAKE, since=version)
        return None

    def _look_for_a_prompt(self) -> None:
        """One that comes while ComfyUI is away may have no time left to wait for it."""
        if self.ledger.ended or self.ledger.first(Prompted) is not None:
            raise _Woken

    def _render_or_answer(self, task: TaskInHand) -> None:
        prompt = task.stage
        if not isinstance(prompt, Prompted):
            return
        self._task_id, self._prompt_id = task.task_id, prompt.prompt_id
        self.ledger.note(task.task_id, started_at=self._started.get(prompt.prompt_id, 0.0))
        try:
            self._render(task, prompt)
        except LeaseLost:
            self.answers.lost(task.task_id)
        except JobFault as fault:
            self.answers.fail(task.task_id, fault.message)
        except MachineFault as fault:
            if isinstance(fault, PromptLost):
                self._cancel.doubt(prompt.prompt_id)
            if task.resumed and isinstance(fault, PromptLost):
                log.info("prompt_forgotten", task_id=task.task_id, reason=fault.message, next="preparing it again")
                self.again.anew(task, prompt.job)
            else:
                self.again.spoiled(task, prompt.job, fault)
        except Exception:
            self._cancel.now(prompt.prompt_id)  # a bug: the prompt must not outlive its task
            raise
        finally:
            self._started.pop(prompt.prompt_id, None)
            self._ended.discard(prompt.prompt_id)
            self._task_id, self._prompt_id, self.preview = "", "", None

    def _render(self, task: TaskInHand, prompt: Prompted) -> None:
        history = self._follow_or_give_up(task, prompt)
        if not task.resumed:
            self._hearing.ended(prompt.prompt_id, after=self.clock() - task.queued_at)
        rendered = self._result(task, prompt, history)
        self.capabilities.rendered(prompt.job.workflow, seconds=rendered.inference_latency)
        self.ledger.advance(task.task_id, rendered)
        self.liveness.beat(IDLE)
        log.debug("task_step", task_id=task.task_id, step="rendered")

    # ---- one prompt -------------------------------------------------------------------------------

    def _follow_or_give_up(self, task: TaskInHand, prompt: Prompted) -> History:
        """Follow a prompt; if it must end early, cancel it in ComfyUI before raising."""
        try:
            return self._follow(task, prompt)
        except (LeaseLost, JobFault, ComfyRefused) as reason:
            log.info("prompt_cancelled", task_id=task.task_id, reason=reason.message)
            self._cancel.now(prompt.prompt_id)
            raise

    def _follow(self, task: TaskInHand, prompt: Prompted) -> History:
        """Follow a prompt across ComfyUI's failures. Raises what ends it early."""
        if task.given_up:
            raise JobFault(task.given_up)
        cause: ComfyDown | None = None
        while True:
            try:
                if cause is None:
                    self.host.check()  # it may have died of this prompt before anybody followed it
                self._make_ready(tick=lambda: self._tick(task.task_id, prompt.job, alive=False))
                return follow(
                    self.host.client,
                    self.host.stream,
                    prompt.prompt_id,
                    tick=lambda: self._tick(task.task_id, prompt.job),
                    on_event=self._note,
                    look_first=task.resumed or prompt.prompt_id in self._ended,
                    poll=self._hearing.poll,
                    stall=self.stall,
                    limit=self.capabilities.library.get(prompt.job.workflow).manifest.timeout_seconds,
                )
            except ComfyDown as down:
                cause = down
                self.host.condemn(down.message)
            except PromptLost as lost:
                raise (PromptLost(cause.message, hint=cause.hint, fault=cause.fault) if cause else lost) from cause

    def _tick(self, task_id: str, job: Job, *, alive: bool = True) -> None:
        self.liveness.beat()
        task = self.ledger.get(task_id)
        if task is None or task.taken_away:
            raise LeaseLost("taken away by the sequencer")
        if self.shutdown.state == "aborting":
            raise JobFault(SHUTTING_DOWN)
        if self.clock() >= job.deadline:
            raise JobFault(self._overran(task, job) if alive else NOT_READY)
        if alive:
            self.host.check()
            self._cancel.catch_up()
            self.previews.catch_up()
        elif self.host.gone_for_good(left=job.deadline - self.clock()):
            raise JobFault(AWAY)

    def _overran(self, task: TaskInHand, job: Job) -> str:
        """Why the time is over, for the consumer: the render itself, or what this machine did before it."""
        allowed = job.deadline - task.lease.leased_at
        if not task.started_at or self.clock() - task.started_at < allowed / 2:
            return NOT_READY
        silent = self.clock() - max(task.started_at, self._hearing.heard_at)
        why = STUCK if silent >= allowed / 2 and not self.host.deaf else OVERRAN
        self.capabilities.pauses.ended_badly(job.workflow, task_id=task.task_id, reason=why)
        return why

    def _note(self, event: Event) -> None:
        self._hearing.note(event)
        if isinstance(event, Started):
            self._started[event.prompt_id] = self.clock()
            if event.prompt_id == self._prompt_id:
                self.ledger.note(self._task_id, started_at=self.clock())
            if self._idle_since is not None:
                metrics.IDLE_GAP_SECONDS.labels(self.lane).observe(max(self.clock() - self._idle_since, 0.0))
        elif isinstance(event, Progress):
            self.ledger.note(self._task_id, progress=event)
            log.debug("task_progress", task_id=self._task_id, value=event.value, of=event.of, done=event.done)
        elif isinstance(event, Preview):
            self.preview = event
        elif isinstance(event, Ended):
            self._ended.add(event.prompt_id)
            self._idle_since = self.clock()

    def _result(self, task: TaskInHand, prompt: Prompted, history: History) -> Rendered:
        """A prompt's result. Raises MachineFault."""
        job = prompt.job
        output = self.capabilities.library.get(job.workflow).manifest.output
        files = verdict(task.task_id, prompt, history, output=output, host=self.host)
        seconds = self._seconds(task, prompt.prompt_id, history)
        others = islice(history.written.difference(files), MOST_FILES)
        return Rendered(
            job=job, prompt_id=prompt.prompt_id, files=files, others=tuple(others), inference_latency=seconds
        )

    def _seconds(self, task: TaskInHand, prompt_id: str, history: History) -> float:
        """How long the render took: by ComfyUI's own start and end, else by ours, which may begin too early or late.

        A step of ComfyUI's clock can make its own longer than the task has been here.
        """
        now = self.clock()
        if history.seconds is not None and history.seconds <= now - task.lease.leased_at:
            return history.seconds
        begun = self._started.get(prompt_id) or (task.lease.leased_at if task.resumed else task.queued_at)
        return max(now - begun, 0.0)
