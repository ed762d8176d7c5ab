"""The refresh loop: updates the capabilities without a restart when models, LoRAs or free disk change, and after a
fault that preflight should have seen.

It watches the models folders on this machine; for others, it asks ComfyUI now and then. `/object_info` slows a running
prompt down, so it waits until nothing renders, and on a busy lane MAX_DELAY for known changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from miner.comfy.client import ComfyFault
from miner.comfy.host import ComfyHost
from miner.comfy.replies import Stats
from miner.machine.disk import Disk
from miner.models.folder_watch import FolderWatch
from miner.task.ledger import Ledger
from miner.telemetry import clock
from miner.telemetry.liveness import REMOTE, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.shutdown import Shutdown

log = structlog.get_logger()

LOOK_EVERY = 2.0  # seconds between checks of the folders
ASK_EVERY = 300.0  # seconds between requests for unknown changes
ASK_EVERY_WHILE_IDLE = 60.0  # … while nothing is runnable
MAX_DELAY = 120.0  # seconds to wait for a pause between renders
RETRY = 30.0  # seconds, after ComfyUI did not answer


@dataclass(slots=True, kw_only=True)
class Refresh:
    """One lane's refresh loop; `run` ends when the lane drains."""

    ledger: Ledger
    host: ComfyHost
    capabilities: Capabilities
    disk: Disk
    folder_watch: FolderWatch
    shutdown: Shutdown
    ask_anew: Callable[[], None]
    liveness: Liveness
    clock: Callable[[], float] = clock.now
    says: str = "watching for new, replaced and removed models"  # one sentence in the present tense
    _changed_at: float | None = None  # Unix seconds of the first change since the last request
    _not_before: float = 0.0  # Unix seconds

    def run(self) -> None:
        while not self.shutdown.draining.wait(LOOK_EVERY):
            self.liveness.beat()
            self.look()
        self.says = "stopped"

    def look(self) -> None:
        """Check for changes once, and ask ComfyUI if due, which may block."""
        now = self.clock()
        came = self.folder_watch.changed()
        self.capabilities.model_folders.writing = self.folder_watch.writing
        if self._changed_at is None and (came or self._disk_suffices() or self.capabilities.pauses.doubted):
            self._changed_at = now
        if self._is_time(now):
            self._ask()
        waits = self._changed_at is not None or self.folder_watch.unsettled
        self.says = (
            "waiting to advertise what changed in the models folders"
            if waits
            else "watching for new, replaced and removed models"
        )

    def _is_time(self, now: float) -> bool:
        if now < self._not_before or not self.host.ready.is_set():
            return False
        rests = all(task.answered or task.rendered_at for task in self.ledger.view())
        if self._changed_at is not None:
            return rests or now - self._changed_at >= MAX_DELAY
        return rests and now - self.capabilities.refreshed_at >= (
            ASK_EVERY if self.capabilities.runnable else ASK_EVERY_WHILE_IDLE
        )

    def _disk_suffices(self) -> bool:
        """Whether free disk suffices again for a workflow that lacked it."""
        wanted, free = self.capabilities.disk_wanted, self.disk.free()
        return wanted is not None and free is not None and free >= wanted

    def _ask(self) -> None:
        self.says = "reading ComfyUI's node list"
        self.liveness.beat(REMOTE)
        try:
            self.host.ask_again(self._update)
        except ComfyFault as fault:
            self._not_before = self.clock() + RETRY
            log.warning(
                "capabilities_not_refreshed", reason=fault.message, hint=fault.hint, next=f"retrying in {RETRY:.0f} s"
            )
        else:
            self._changed_at = None

    def _update(self, object_info: dict[str, Any], stats: Stats) -> None:
        if self.capabilities.refresh(object_info, stats, free_disk=self.disk.free()):
            self.ask_anew()  # the poll may be waiting, here or at the sequencer
