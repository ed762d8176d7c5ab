"""A session with an idle ComfyUI: a running one, or a managed one that is started and stopped again.

Promises: a running ComfyUI keeps running, one that was started here is stopped, and a miner that is at work is never
disturbed. Blocks while ComfyUI starts.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miner.comfy.client import ComfyClient
from miner.comfy.events import Event, EventStream, Started
from miner.comfy.follow import follow
from miner.comfy.host import ComfyHost
from miner.comfy.launch import Launch
from miner.comfy.preflight import Machine
from miner.comfy.process import ComfyProcess
from miner.comfy.replies import History, Stats
from miner.config import Settings
from miner.doctor.facts import WorkerStatus, machine_here
from miner.doctor.interrupts import uninterrupted
from miner.task.errors import MachineFault
from miner.task.journal_file import lock
from miner.task.stages import Graph
from miner.worker.layout import Placement
from miner.workflows import Workflow


class Busy(MachineFault):
    """ComfyUI or its miner is at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfySession:
    """One idle ComfyUI, and a folder for its results."""

    settings: Settings
    host: ComfyHost
    stats: Stats
    object_info: dict[str, Any]
    folder: Path
    fastest: Mapping[str, str]  # workflow → the variant that a tuning chose for this lane

    def machine(self, workflows: Iterable[Workflow]) -> Machine:
        """What preflight checks `workflows` against."""
        return machine_here(self.settings, workflows, self.object_info, self.stats)

    def run(self, graph: Graph, prompt_id: str, *, limit: float) -> tuple[History, float]:
        """Render; returns the history and the seconds since ComfyUI started it. Blocks.

        Raises PromptRefused, and MachineFault after `limit` seconds; the prompt is then cancelled.
        """
        while self.host.stream.next(0.01) is not None:  # connect before submitting, and drop earlier events
            pass
        began = time.monotonic()

        def tick() -> None:
            self.host.check()
            if time.monotonic() - began > limit:
                raise MachineFault(f"not done within {limit:.0f} s", hint="check ComfyUI's log")

        def note(event: Event) -> None:
            nonlocal began
            if isinstance(event, Started) and event.prompt_id == prompt_id:
                began = time.monotonic()

        self.host.client.submit(graph, prompt_id)
        try:
            history = follow(self.host.client, self.host.stream, prompt_id, tick=tick, on_event=note)
        except BaseException:
            with suppress(MachineFault):  # ComfyUI may be what failed
                self.host.client.cancel(prompt_id)
            raise
        return history, time.monotonic() - began


@contextmanager
def open_session(placement: Placement, settings: Settings, worker: WorkerStatus) -> Iterator[ComfySession]:
    """The placement's ComfyUI, started if it is managed and no miner runs.

    Raises Busy; MachineFault if it does not answer or start; ConfigError if a miner has just locked the state folder.
    """
    if worker.has_state_lock and not worker.is_idle:
        cure = "run xalora-miner pause, wait until its tasks are finished, and try again"
        raise Busy("a miner is at work on this GPU", hint=cure)
    if placement.launch is None or worker.has_state_lock:
        with _connected(placement, settings, None) as session:
            yield session
        return
    with locked_state(settings.state.dir), managed_session(placement, settings, placement.launch) as session:
        yield session


@contextmanager
def managed_session(placement: Placement, settings: Settings, launch: Launch) -> Iterator[ComfySession]:
    """A ComfyUI of the placement, started by `launch`; for a caller that holds the lock of the state folder.

    Raises MachineFault if it does not start.
    """
    process = ComfyProcess(
        launch,
        state=settings.state.dir,
        start_timeout=settings.comfyui.start_timeout,
        stop_grace=10.0,
        spawning=uninterrupted,
    )
    with _started(process, launch), _connected(placement, settings, process) as session:
        yield session


@contextmanager
def _started(process: ComfyProcess, launch: Launch) -> Iterator[None]:
    was_there = _answers(launch.url)
    try:
        process.start(threading.Event())
        yield
    finally:
        if not was_there:
            with uninterrupted():
                process.stop()


def _answers(url: str) -> bool:
    client = ComfyClient(url, client_id="", timeout=2.0)
    try:
        client.stats()
    except MachineFault:
        return False
    finally:
        client.close()
    return True


@contextmanager
def _connected(placement: Placement, settings: Settings, process: ComfyProcess | None) -> Iterator[ComfySession]:
    client_id = f"xalora-doctor-{uuid.uuid4()}"
    host = ComfyHost(
        ComfyClient(placement.url, client_id=client_id),
        EventStream(placement.url, client_id=client_id),
        process=process,
        output_dir=placement.output_dir,
        input_dir=placement.input_dir,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="xalora-doctor-") as folder:
            stats, nodes, queue = host.client.stats(), host.client.object_info(), host.client.queue()
            if at_work := len(queue.running) + len(queue.pending):
                says = f"ComfyUI at {host.client.url} is busy: {at_work} prompts in its queue"
                raise Busy(says, hint="try again when it is idle")
            yield ComfySession(
                settings=settings,
                host=host,
                stats=stats,
                object_info=nodes,
                folder=Path(folder),
                fastest=placement.fastest,
            )
    finally:
        host.close(leave_running=True)


@contextmanager
def locked_state(state: Path) -> Iterator[None]:
    """Lock the state folder against miners, as a miner does. Raises ConfigError."""
    handle = lock(state)
    try:
        yield
    finally:
        os.close(handle)
