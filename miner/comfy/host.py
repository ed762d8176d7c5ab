"""The ComfyUI of one lane: gets it ready, restarts or awaits a sick one, and returns its files.

A managed (or embedded) ComfyUI is our process and can be restarted; an external one can only be awaited. It never
decides whether a task succeeded.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import structlog

from miner.comfy.client import ComfyClient, ComfyDown, ComfyFault, OutputGone
from miner.comfy.events import EventStream
from miner.comfy.leftovers import Leftovers
from miner.comfy.leftovers import folder_of as folder_of  # part of this module's interface
from miner.comfy.process import ComfyProcess
from miner.comfy.replies import Stats
from miner.task.errors import MachineFault
from miner.task.policy import backoff
from miner.task.stages import OutputFile
from miner.telemetry import clock

log = structlog.get_logger()

LOOK_EVERY = 3.0  # seconds between looks at an idle ComfyUI
LOOK_TIMEOUT = 5.0
RESTART = 4.0  # seconds that it may be away until a held request is ended: a lease in its reply would be lost
# Seconds that a task waits for a ComfyUI that has gone: a third of what is left to it, between these. An external one
# takes up to a minute or two to restart, with many custom nodes.
LEAST_PATIENCE = 20.0
MOST_PATIENCE = 120.0
TOO_LARGE = "its memory is over the limit"
DEAF = "its event stream is silent"
RECYCLED = (TOO_LARGE, DEAF)  # reasons to restart that do not count as a death


class ComfyHost:
    """The render loop owns it: only that loop calls `ensure` and the stream; any thread may call the rest."""

    def __init__(
        self,
        client: ComfyClient,
        stream: EventStream,
        *,
        process: ComfyProcess | None = None,
        output_dir: Path | None = None,
        input_dir: Path | None = None,
        on_ready: Callable[[dict[str, Any], Stats], None] = lambda _nodes, _stats: None,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        self.client = client
        self.stream = stream
        self.process = process
        self.ready = threading.Event()
        self.stats: Stats | None = None
        self.trouble = "starting"  # a sentence while it is not ready
        self.unready_since = clock()  # while it is not ready
        self.deaf = False  # its event stream is connected and silent: set by the lane
        self.output_dir = output_dir
        folders = {kind: path for kind, path in (("input", input_dir), ("output", output_dir)) if path is not None}
        self.leftovers = Leftovers(client, folders=folders, ours=process is not None)
        self._on_ready = on_ready
        self.on_away: Callable[[], None] = lambda: None  # it stays away; called more than once
        self._clock = clock
        self._looked_at = clock()
        self._asking = False  # it lists its nodes, and may answer nothing else meanwhile
        self._heard = 0  # the connection of the event stream when it was last seen
        self._rng = random.Random()
        self._condemned: str | None = None  # why it must be restarted

    # ---- its life ---------------------------------------------------------------------------------

    def ensure(self, stop: threading.Event, *, tick: Callable[[], None] = lambda: None) -> None:
        """Block until ComfyUI is ready or `stop` is set. Starts or restarts a managed one.

        `tick` is called about twice a second, except while a process starts, and may raise to give up.
        """

        def turn() -> None:
            tick()
            if self._clock() - self.unready_since >= RESTART:
                self.on_away()  # each time: a request that was about to be made is held now

        attempt = 0
        while not stop.is_set() and not self.ready.is_set():
            turn()
            try:
                self._rest_if_exhausted(stop, turn)
                self._revive(stop)
                self._get_ready()
            except MachineFault as fault:
                attempt += 1
                self.trouble = fault.message
                pause = backoff(attempt, rng=self._rng, base=1.0, cap=30.0)
                log.warning("comfyui_not_ready", reason=fault.message, hint=fault.hint, next=f"again in {pause:.1f} s")
                _wait(pause, stop, turn)

    def _rest_if_exhausted(self, stop: threading.Event, tick: Callable[[], None]) -> None:
        """Leave a process that keeps dying alone until its deaths are old."""
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
            self.process.restart(condemned, stop, death=condemned not in RECYCLED)

    def _get_ready(self) -> None:
        self.client.queue()
        self.stats = self.client.stats()
        _pass_on(self.client.object_info(), self.stats, self._on_ready)
        self.trouble, self._looked_at = "", self._clock()
        self.ready.set()
        log.info("comfyui_ready", url=self.client.url, version=self.stats.version, device=self.stats.device)

    def ask_again(self, tell: Callable[[dict[str, Any], Stats], None]) -> None:
        """Query it again and call `tell` like `on_ready`; does nothing if it is not ready or just became so.

        Any thread may call it. Blocks for two requests. Raises ComfyFault, without suspecting it.
        """
        before = self.stats
        if not self.ready.is_set():
            return
        self._asking = True
        try:
            stats, nodes = self.client.stats(), self.client.object_info()  # an external ComfyUI may have been updated
        finally:
            self._asking = False
        if self.ready.is_set() and self.stats is before:
            self.stats = stats
            _pass_on(nodes, stats, tell)

    def suspect(self, reason: str) -> None:
        """Submit nothing until `ensure` has seen it answer again."""
        if self.ready.is_set():
            self.trouble, self.unready_since = reason, self._clock()
            self.ready.clear()

    def condemn(self, reason: str) -> None:
        """Have `ensure` restart it if it is ours; an external one is for its owner to restart."""
        self.suspect(reason)
        self._condemned = reason
        can = "restarting it" if self.process is not None else "waiting: restart your ComfyUI"
        log.warning("comfyui_sick", reason=reason, next=can)

    def look_after(self) -> None:
        """Notice that it has gone while nothing is to do, so that no task finds out: its process has ended, its event
        stream has broken off, or it no longer answers, as when it hangs or its host was switched off.

        Cheap enough for every turn of a loop: blocks for one request of at most LOOK_TIMEOUT seconds, now and then.
        """
        if not self.ready.is_set():
            return
        try:
            self.check()
            if self._is_time_to_look():
                self._looked_at = self._clock()
                self.client.queue(timeout=LOOK_TIMEOUT)
        except ComfyFault as fault:
            log.warning("comfyui_gone", reason=fault.message, hint=fault.hint, next="leasing nothing until it is back")
            self.suspect(fault.message)

    def _is_time_to_look(self) -> bool:
        had, self._heard = self._heard, self.stream.connections if self.stream.connected else 0
        broke_off = had not in (0, self._heard)
        return not self._asking and (broke_off or self._clock() - self._looked_at >= LOOK_EVERY)

    def gone_for_good(self, *, left: float) -> bool:
        """Whether a task with `left` seconds to its deadline has waited long enough for a ComfyUI that is not ready."""
        if self.ready.is_set():
            return False
        away = self._clock() - self.unready_since
        most = MOST_PATIENCE if self.process is None else max(MOST_PATIENCE, self.process.start_timeout)
        return away >= max(LEAST_PATIENCE, min(most, (left + away) / 3))

    def check(self) -> None:
        """Raise ComfyDown if our process has ended by itself; cheap enough for every tick."""
        if self.process is not None:
            self.process.check()

    def close(self, *, leave_running: bool = False) -> None:
        """Close connections, then stop the process if it is ours and not left for the next start to adopt."""
        self.stream.close()
        self.client.close()
        if self.process is not None and not leave_running:
            try:
                self.process.stop()
            except ComfyDown as down:
                log.error("comfyui_not_stopped", reason=down.message, hint=down.hint, next="the next start will end it")

    # ---- its files --------------------------------------------------------------------------------

    def local_path(self, file: OutputFile) -> Path | None:
        """The output's path on this disk, if ComfyUI's folder is shared and writable and contains it."""
        if self.output_dir is None or file.kind != "output":
            return None
        root = self.output_dir.resolve()
        path = (root / file.subfolder / file.filename).resolve()
        usable = path.is_relative_to(root) and path.is_file() and os.access(path.parent, os.W_OK)
        return path if usable else None

    def fetch(self, file: OutputFile, folder: Path) -> Path:
        """The output as a local file: ComfyUI's own if its folder is shared, else a copy in `folder`.

        Raises OutputGone if it is missing or empty: ComfyUI reports success before anybody looks at its disk.
        """
        path = self.local_path(file)
        if path is None:
            path = folder / f"{time.time_ns()}{Path(file.filename).suffix[:8]}"
            self.client.download(file, path)
        if not path.is_file() or path.stat().st_size == 0:
            raise OutputGone("ComfyUI's output is empty", hint="check the space on its output disk", fault="disk")
        return path

    def discard(self, prompt_id: str, files: Collection[OutputFile] = (), *, ended: bool = False) -> str:
        """Erase the files of a prompt, `files` among them: see `Leftovers.erase`. Returns why something may be left, or
        "". Blocks for a few short requests."""
        return self.leftovers.erase(prompt_id, files, ended=ended, reachable=self.ready.is_set() and not self._ended)

    def forget(self, prompts: Collection[str]) -> str:
        """Erase prompts from ComfyUI's history, in one request. Returns why they may be left, or ""."""
        if self._ended:  # and its history with it
            return ""
        return (
            self.leftovers.forget(prompts)
            if self.ready.is_set()
            else "ComfyUI is not ready, and may still have its history"
        )

    @property
    def _ended(self) -> bool:
        """Whether the process of ours has ended."""
        return self.process is not None and self.stats is not None and not self.process.alive()

    def scrub_log(self, strings: Collection[str] | None, *, since: float) -> None:
        """Erase a task's strings from the log of a ComfyUI of ours; None: they are unknown. `since`: see ProcessLog."""
        if self.process is not None and strings is None:
            self.process.log.empty()
        elif self.process is not None and strings:
            self.process.log.scrub(strings, since=since)


def _pass_on(nodes: dict[str, Any], stats: Stats, tell: Callable[[dict[str, Any], Stats], None]) -> None:
    """Call `tell`. Raises ComfyDown if the data cannot be from a ComfyUI."""
    try:
        tell(nodes, stats)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ComfyDown(f"ComfyUI's description of its nodes is malformed ({type(error).__name__})") from error


def _wait(seconds: float, stop: threading.Event, tick: Callable[[], None]) -> None:
    """Wait until `stop` is set or the time is over, with a `tick` every half second."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, 0.5)):
        tick()
