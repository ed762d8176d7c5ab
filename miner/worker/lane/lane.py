"""A lane: connects its loops, starts them, and ends them in order.

    sequencer ─▶ prepare ─▶ render ─▶ deliver ─▶ outbox ─▶ sequencer
                    └── each takes the first task at its stage from the ledger ──┘

Draining: prepare leases nothing and ends once all tasks in hand are answered; then the others, the heartbeat last.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import structlog

from miner.comfy.deaths import recent, too_many
from miner.comfy.host import ComfyHost
from miner.comfy.replies import Stats
from miner.config import Settings
from miner.machine.disk import Disk
from miner.media.inputs import Fetcher
from miner.media.uploads import Uploader
from miner.models.folder_watch import FolderWatch
from miner.models.on_demand import OnDemand
from miner.sequencer import Sequencer
from miner.sequencer.outbox import Outbox
from miner.task.journal import Journal
from miner.task.journal_file import unusable
from miner.task.ledger import Ledger
from miner.task.policy import backoff
from miner.telemetry import clock, metrics
from miner.telemetry.audience import Audience
from miner.telemetry.liveness import IDLE, Liveness
from miner.telemetry.sizes import GIGABYTE
from miner.worker.lane.again import Again
from miner.worker.lane.answers import Answers
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.cleanup import Cleanup
from miner.worker.lane.deliver import Deliver
from miner.worker.lane.gate import Gate
from miner.worker.lane.heartbeat import Heartbeat
from miner.worker.lane.loras import Loras
from miner.worker.lane.own_renders import WARMING_UP
from miner.worker.lane.poll import Poll
from miner.worker.lane.prepare import Prepare
from miner.worker.lane.previews import Previews
from miner.worker.lane.recover import Recover
from miner.worker.lane.refresh import Refresh
from miner.worker.lane.render import Render
from miner.worker.lane.shutdown import Shutdown
from miner.worker.lane.standing import Standing

log = structlog.get_logger()

JOIN = 10.0  # seconds for a loop to end once it was told


class Loop(Protocol):
    """What the dashboard reads of each loop."""

    liveness: Liveness

    @property
    def says(self) -> str: ...


class Lane:
    """One lane. `failed`: one of its threads crashed outside of a task (a bug)."""

    def __init__(
        self,
        name: str,
        *,
        miner_id: str,
        settings: Settings,
        shutdown: Shutdown,
        host: ComfyHost,
        capabilities: Capabilities,
        sequencer: Sequencer,
        journal: Journal,
        outbox: Outbox,
        fetcher: Fetcher,
        uploader: Uploader,
        audience: Audience,
        folder: Path,
        on_demand: OnDemand | None = None,
        used: Callable[[str], None] = lambda _lora: None,
    ) -> None:
        """`folder`: for temporary files; emptied by `start`. Raises ConfigError if it cannot be made."""
        self.name = name
        self.host = host
        self.capabilities = capabilities
        self.shutdown = shutdown
        self.failed: BaseException | None = None
        self.restarts = 0  # of ComfyUI
        self._recovered = False
        self._rng = random.Random()
        self._comfyui_pid: int | None = None
        metrics.COMFYUI_RESTARTS.labels(name)
        _make(folder)
        self.ledger = ledger = Ledger(miner_id=miner_id, journal=journal, folder=folder)
        answers = Answers(ledger=ledger, outbox=outbox)
        again = Again(ledger=ledger, answers=answers, capabilities=capabilities)
        self.gate = gate = Gate(
            sequencer=sequencer,
            ledger=ledger,
            journal=journal,
            answers=answers,
            shutdown=shutdown,
            prefetch=settings.miner.prefetch,
            standing=Standing(nodes=capabilities.nodes, usual=capabilities.usual_seconds).of,
        )
        self.cleanup = Cleanup(
            ledger=ledger, host=host, journal=journal, thumbnails=settings.status.enabled, state=folder.parent
        )
        ledger.cleaner = self.cleanup.add
        host.on_away = gate.ask_anew
        self.recover = Recover(
            ledger=ledger,
            journal=journal,
            answers=answers,
            workflows=[workflow.name for workflow in capabilities.library.workflows],
        )
        self._disk = Disk(
            folders=[path for path in (settings.state.dir, host.output_dir) if path is not None],
            least_gb=settings.miner.min_free_disk_gb,
        )
        liveness = Liveness()
        previews = Previews(ledger=ledger, host=host, audience=audience)
        self.render = Render(
            ledger=ledger,
            answers=answers,
            again=again,
            host=host,
            capabilities=capabilities,
            shutdown=shutdown,
            interrupt_grace=settings.comfyui.interrupt_grace,
            stall=settings.comfyui.stall_timeout,
            max_rss=settings.comfyui.max_rss_gb * GIGABYTE,
            warmup=settings.miner.warmup,
            ask_anew=gate.ask_anew,
            previews=previews,
            lane=name,
        )
        self.prepare = Prepare(
            ledger=ledger,
            answers=answers,
            again=again,
            host=host,
            capabilities=capabilities,
            fetcher=fetcher,
            uploader=uploader,
            shutdown=shutdown,
            previews=previews,
            liveness=liveness,
            doubt=self.render.doubt,
            loras=Loras(library=capabilities.library, client=host.client, on_demand=on_demand, used=used),
            poll=Poll(
                ledger=ledger,
                gate=gate,
                host=host,
                capabilities=capabilities,
                disk=self._disk,
                liveness=liveness,
                poll_interval=settings.sequencer.poll_interval,
                wait=settings.sequencer.wait,
                prefer_warm=settings.miner.prefer_warm,
            ),
        )
        self.deliver = Deliver(
            ledger=ledger,
            answers=answers,
            again=again,
            cleanup=self.cleanup,
            host=host,
            capabilities=capabilities,
            uploader=uploader,
            shutdown=shutdown,
            prefix=settings.upload.prefix,
        )
        self.heartbeat = Heartbeat(
            ledger=ledger,
            gate=gate,
            capabilities=capabilities,
            poll=self.prepare.poll,
            interval=settings.sequencer.heartbeat,
        )
        self.refresh = Refresh(
            ledger=ledger,
            host=host,
            capabilities=capabilities,
            disk=self._disk,
            folder_watch=FolderWatch(capabilities.model_folders.roots),
            shutdown=shutdown,
            ask_anew=gate.ask_anew,
            liveness=Liveness(),
        )
        self._threads = [
            self._thread("prepare", self._recover_then_prepare),
            self._thread("render", self.render.run),
            self._thread("deliver", self.deliver.run),
        ]
        self._heartbeat_thread = self._thread("heartbeat", self.heartbeat.run)
        self._refresh_thread = self._thread("refresh", self.refresh.run)

    def start(self) -> None:
        """Call once the lane that had the same folder before has ended."""
        for left in self.ledger.folder.iterdir():
            shutil.rmtree(left, ignore_errors=True)  # what an earlier run left
        for thread in (*self._threads, self._heartbeat_thread, self._refresh_thread):
            thread.start()

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    @property
    def running(self) -> list[str]:
        """The names of the threads that have not ended."""
        threads = (*self._threads, self._heartbeat_thread, self._refresh_thread)
        return [thread.name for thread in threads if thread.is_alive()]

    def join(self, *, leave_running: bool = False) -> None:
        """Wait for the loops, then end the heartbeat and close ComfyUI; `leave_running` keeps its process.

        A heartbeat or refresh that hangs (in a network drive, say) is left behind: it owns nothing.
        """
        for thread in self._threads:
            thread.join()
        self.heartbeat.stop.set()
        self.ledger.wake()
        self._heartbeat_thread.join(JOIN)
        self.host.close(leave_running=leave_running)
        self._refresh_thread.join(JOIN)  # after ComfyUI's end, which ends its request
        if self.running:
            log.error("thread_hangs", threads=self.running, next="going on without it")

    @property
    def without_comfyui_since(self) -> float:
        """When this lane's own ComfyUI ceased to be ready; 0.0: it is, or it is external, for its owner to restart."""
        host = self.host
        ready = host.process is None or host.ready.is_set() or host.trouble == WARMING_UP
        return 0.0 if ready else host.unready_since

    def comfyui_ready(self, object_info: dict[str, Any], stats: Stats) -> None:
        """Refresh the capabilities and count restarts."""
        self.capabilities.cold()
        self.capabilities.refresh(object_info, stats, free_disk=self._disk.free())
        pid = self.host.process.pid if self.host.process is not None else None
        if self._comfyui_pid not in (None, pid):
            self.restarts += 1
            metrics.COMFYUI_RESTARTS.labels(self.name).inc()
        self._comfyui_pid = pid

    @property
    def loops(self) -> dict[str, Loop]:
        """By name, in a task's order."""
        return {
            "prepare": self.prepare,
            "render": self.render,
            "deliver": self.deliver,
            "heartbeat": self.heartbeat,
            "refresh": self.refresh,
        }

    @property
    def sentence(self) -> str:
        """What the lane does now: the sentence of its most advanced loop."""
        if self.render.busy or not self.host.ready.is_set():
            return self.render.says
        return self.prepare.says

    def _recover_then_prepare(self) -> None:
        if not self._recovered:
            self.cleanup.restore()  # first: what recovery closes is in the cleaner's hands already
            self.recover.run()
            self.cleanup.sweep()
            self._recovered = True
        self.prepare.run()

    def _thread(self, loop: str, run: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            structlog.contextvars.bind_contextvars(lane=self.name)
            crashes: list[float] = []
            while not self.failed and not self._ran(loop, run, crashes):
                self.shutdown.aborting.wait(backoff(len(crashes), rng=self._rng))

        return threading.Thread(target=guarded, name=f"{self.name}-{loop}", daemon=True)

    def _ran(self, loop: str, run: Callable[[], None], crashes: list[float]) -> bool:
        """Run a loop to its end. False after a bug outside of a task: run it again, unless that repeats without end."""
        try:
            run()
        except Exception as error:
            metrics.LOOP_CRASHES.labels(loop).inc()
            crashes[:] = [*recent(crashes, clock.now()), clock.now()]
            if too_many(crashes, clock.now()):
                self.failed = self.failed or error
                log.exception("loop_failed", loop=loop, next="stopping the worker; the journal keeps the tasks in hand")
            else:
                log.exception("loop_crashed", loop=loop, next="running it again; please report this bug")
            return False
        self.loops[loop].liveness.beat(IDLE)  # ended: never late
        return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise unusable(folder, error) from error
