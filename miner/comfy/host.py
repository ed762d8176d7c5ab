"""The ComfyUI of one lane, whoever started it: makes it ready, notices when it is sick, and gives its files.

A managed (or embedded) one is a process of ours and can be restarted; an external one can only be waited for. It never
decides whether a task succeeded.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from miner.comfy.client import ComfyClient, ComfyDown
from miner.comfy.events import EventStream
from miner.comfy.process import ComfyProcess
from miner.comfy.replies import Stats
from miner.task.errors import MachineFault
from miner.task.policy import backoff
from miner.task.stages import OutputFile

log = structlog.get_logger()

TOO_LARGE = "its memory is over the limit"  # a reason for a restart that is no death


class ComfyHost:
    """Owned by the render loop, which alone calls `ensure` and the stream; the rest is for any thread."""

    def __init__(
        self,
        client: ComfyClient,
        stream: EventStream,
        *,
        process: ComfyProcess | None = None,
        output_dir: Path | None = None,
        input_dir: Path | None = None,
        on_ready: Callable[[dict[str, Any], Stats], None] = lambda _nodes, _stats: None,
    ) -> None:
        self.client = client
        self.stream = stream
        self.process = process
        self.ready = threading.Event()
        self.stats: Stats | None = None
        self.trouble = "starting"  # one sentence while it is not ready
        self.output_dir = output_dir
        self._input_dir = input_dir
        self._on_ready = on_ready
        self._rng = random.Random()
        self._condemned: str | None = None  # why it has to be restarted

    # ---- its life ---------------------------------------------------------------------------------

    def ensure(self, stop: threading.Event, *, tick: Callable[[], None] = lambda: None) -> None:
        """Block until ComfyUI is ready or `stop` is set. Starts, or restarts, a process of ours.

        `tick` is called about twice a second, though not while a process starts, and may raise to give up.
        """
        attempt = 0
        while not stop.is_set() and not self.ready.is_set():
            tick()
            try:
                self._rest_if_exhausted(stop, tick)
                self._revive(stop)
                self._get_ready()
            except MachineFault as fault:
                attempt += 1
                self.trouble = fault.message
                pause = backoff(attempt, rng=self._rng, base=1.0, cap=30.0)
                log.warning("comfyui_not_ready", reason=fault.message, hint=fault.hint, next=f"again in {pause:.1f} s")
                _wait(pause, stop, tick)

    def _rest_if_exhausted(self, stop: threading.Event, tick: Callable[[], None]) -> None:
        """A process that keeps dying is left alone until its deaths are old."""
        while self.process is not None and (why := self.process.exhausted) and not stop.is_set():
            if self.trouble != why:
                self.trouble = why
                log.error("comfyui_paused", reason=why, next="this lane waits ten minutes, then tries once more")
            _wait(1.0, stop, tick)

    def _revive(self, stop: threading.Event) -> None:
        if self.process is None:
            return
        condemned, self._condemned = self._condemned, None
        if condemned is None:
            self.process.start(stop)
        else:
            self.process.restart(condemned, stop, death=condemned != TOO_LARGE)

    def _get_ready(self) -> None:
        self.stats = self.client.stats()
        _pass_on(self.client.object_info(), self.stats, self._on_ready)
        self.trouble = ""
        self.ready.set()
        log.info("comfyui_ready", url=self.client.url, version=self.stats.version, device=self.stats.device)

    def ask_again(self, tell: Callable[[dict[str, Any], Stats], None]) -> None:
        """Give `tell` what `on_ready` got, asked anew; nothing while it is not ready, or if it became so meanwhile.

        Any thread may call it. Blocks for two requests. Raises ComfyDown, and leaves it to others to suspect it.
        """
        before = self.stats
        if not self.ready.is_set():
            return
        stats, nodes = self.client.stats(), self.client.object_info()  # an external one may have been updated
        if self.ready.is_set() and self.stats is before:
            self.stats = stats
            _pass_on(nodes, stats, tell)

    def suspect(self, reason: str) -> None:
        """It did not answer: nothing is submitted until `ensure` has seen it answer again."""
        if self.ready.is_set():
            self.trouble = reason
            self.ready.clear()

    def condemn(self, reason: str) -> None:
        """It is sick: `ensure` restarts it where it is ours; an external one is its owner's to restart."""
        self.suspect(reason)
        self._condemned = reason
        can = "restarting it" if self.process is not None else "waiting: an external one is its owner's to restart"
        log.warning("comfyui_sick", reason=reason, next=can)

    def check(self) -> None:
        """Raise ComfyDown when our process has ended; cheap enough for every tick."""
        if self.process is not None and not self.process.alive():
            raise ComfyDown("ComfyUI's process has ended")

    def close(self, *, leave_running: bool = False) -> None:
        """Let go of it: connections first, then the process where it is ours and is not to be adopted by a next one."""
        self.stream.close()
        self.client.close()
        if self.process is not None and not leave_running:
            try:
                self.process.stop()
            except ComfyDown as down:
                log.error("comfyui_not_stopped", reason=down.message, hint=down.hint, next="the next start ends it")

    # ---- its files --------------------------------------------------------------------------------

    def local_path(self, file: OutputFile) -> Path | None:
        """Where the output is on this disk, if ComfyUI's folder is shared, writable, and the name stays inside it."""
        if self.output_dir is None or file.kind != "output":
            return None
        root = self.output_dir.resolve()
        path = (root / file.subfolder / file.filename).resolve()
        usable = path.is_relative_to(root) and path.is_file() and os.access(path.parent, os.W_OK)
        return path if usable else None

    def fetch(self, file: OutputFile, folder: Path) -> Path:
        """The output as a file of this disk: its own where that is shared, else a copy in `folder`."""
        if path := self.local_path(file):
            return path
        target = folder / f"{time.time_ns()}{Path(file.filename).suffix[:8]}"
        self.client.download(file, target)
        return target

    def discard(self, prompt_id: str) -> None:
        """Delete what a finished prompt left in ComfyUI's folders, where this machine has them."""
        for root in (self.output_dir, self._input_dir):
            if root is not None:
                _remove_tree(root.resolve() / folder_of(prompt_id))


def _pass_on(nodes: dict[str, Any], stats: Stats, tell: Callable[[dict[str, Any], Stats], None]) -> None:
    """`tell` what a ComfyUI says of itself. Raises ComfyDown where that is nothing that a ComfyUI would say."""
    try:
        tell(nodes, stats)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ComfyDown(f"what ComfyUI says of its nodes makes no sense ({type(error).__name__})") from error


def _wait(seconds: float, stop: threading.Event, tick: Callable[[], None]) -> None:
    """Until `stop` is set or the time is over, with a `tick` every half second."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, 0.5)):
        tick()


def folder_of(prompt_id: str) -> str:
    """The sub-folder of ComfyUI's input and output folders that a prompt's files are in, its own alone."""
    return f"xalora/{prompt_id}"


def _remove_tree(folder: Path) -> None:
    """`folder`, with what is in it, unless a symbolic link leads there: that would be somebody else's."""
    if folder.is_dir() and folder.resolve() == folder:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            log.warning("output_not_deleted", folder=str(folder), next="it stays; see the folder's rights")
