"""A ComfyUI to render on: the one that answers, or one of ours that is started for it and stopped again.

Promises: what ran before goes on, what was started here ends here, and a miner's own work is never disturbed: where
one is at work, there is no room. Blocks as ComfyUI's start does.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miner.comfy.client import ComfyClient
from miner.comfy.events import Event, EventStream, Started
from miner.comfy.follow import follow
from miner.comfy.host import ComfyHost
from miner.comfy.launch import Launch
from miner.comfy.process import ComfyProcess
from miner.comfy.replies import History, Stats
from miner.config import Settings
from miner.doctor.facts import WorkerStatus
from miner.task.errors import ConfigError, MachineFault
from miner.task.stages import Graph
from miner.worker.layout import Placement


class Busy(MachineFault):
    """Somebody else renders there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfySession:
    """One ComfyUI that has nothing else to do, and a folder for what it gives."""

    host: ComfyHost
    stats: Stats
    object_info: dict[str, Any]
    folder: Path

    def run(self, graph: Graph, prompt_id: str, *, limit: float) -> tuple[History, float]:
        """Render; gives the end and the seconds from ComfyUI's start with it. Blocks.

        Raises PromptRefused, and MachineFault where it takes more than `limit` seconds; then it is cancelled.
        """
        while self.host.stream.next(0.01) is not None:  # connect before submitting, and forget what was said before
            pass
        began = time.monotonic()

        def tick() -> None:
            self.host.check()
            if time.monotonic() - began > limit:
                raise MachineFault(f"it was not done within {limit:.0f} s", hint="see ComfyUI's log for what it does")

        def note(event: Event) -> None:
            nonlocal began
            if isinstance(event, Started) and event.prompt_id == prompt_id:
                began = time.monotonic()

        self.host.client.submit(graph, prompt_id)
        try:
            history = follow(self.host.client, self.host.stream, prompt_id, tick=tick, on_event=note)
        except BaseException:
            with suppress(MachineFault):  # it may be what has ended this
                self.host.client.cancel(prompt_id)
            raise
        return history, time.monotonic() - began


@contextmanager
def open_session(placement: Placement, settings: Settings, worker: WorkerStatus) -> Iterator[ComfySession]:
    """The placement's ComfyUI, started where it is ours and no miner runs.

    Raises AtWork; MachineFault where it does not answer or cannot be started; ConfigError where a miner has just
    taken the state folder.
    """
    if worker.has_state_lock and not worker.is_idle:
        cure = "xalora-miner pause, wait until nothing is in hand, and try again"
        raise Busy("a miner is at work here, and would have to share its GPU", hint=cure)
    if placement.launch is None or worker.has_state_lock:
        with _connected(placement, None) as session:
            yield session
        return
    process = ComfyProcess(
        placement.launch, state=settings.state.dir, start_timeout=settings.comfyui.start_timeout, stop_grace=10.0
    )
    with (
        _locked_state(settings.state.dir),
        _started(process, placement.launch),
        _connected(placement, process) as session,
    ):
        yield session


@contextmanager
def _started(process: ComfyProcess, launch: Launch) -> Iterator[None]:
    was_there = _answers(launch.url)
    try:
        process.start(threading.Event())
        yield
    finally:
        if not was_there:
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
def _connected(placement: Placement, process: ComfyProcess | None) -> Iterator[ComfySession]:
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
                says = f"ComfyUI at {host.client.url} is at work: {at_work} prompts in its queue"
                raise Busy(says, hint="try again when it is idle")
            yield ComfySession(host=host, stats=stats, object_info=nodes, folder=Path(folder))
    finally:
        host.close(leave_running=True)


@contextmanager
def _locked_state(state: Path) -> Iterator[None]:
    """Keep every miner out of the state folder, as a miner itself does."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"[state] dir {state}: a miner has just started in it", hint="try again") from error
        yield
    finally:
        os.close(handle)
