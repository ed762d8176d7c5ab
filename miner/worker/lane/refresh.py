"""The refresh loop: has the offer judged anew when it may have changed, with no restart and no interruption.

What changes while ComfyUI runs are the models and LoRAs in its folders (`models pull`, a copy by hand) and the room on
the disk. Folders that this machine has are watched; for those that it does not know, ComfyUI is asked now and then.
`/object_info` takes time from a prompt that runs, so it waits until nothing is to be rendered. Only what is known to
have come is asked for in the end on a lane that never rests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from miner.comfy.client import ComfyDown
from miner.comfy.host import ComfyHost
from miner.comfy.replies import Stats
from miner.machine.disk import Disk
from miner.models.folder_watch import FolderWatch
from miner.task.ledger import Ledger
from miner.telemetry.liveness import REMOTE, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.shutdown import Shutdown

log = structlog.get_logger()

LOOK_EVERY = 2.0  # seconds between two looks at the folders
ASK_EVERY = 300.0  # seconds between two requests for what nobody tells of
ASK_HUNGRY = 60.0  # … and while nothing is runnable
PATIENCE = 120.0  # seconds that a model waits for a lane to rest
RETRY = 30.0  # seconds until ComfyUI is asked again after it did not answer


@dataclass(slots=True, kw_only=True)
class Refresh:
    """One lane's refresh loop; `run` ends when the lane drains, since nothing is offered from then on."""

    ledger: Ledger
    host: ComfyHost
    capabilities: Capabilities
    disk: Disk
    folder_watch: FolderWatch
    shutdown: Shutdown
    liveness: Liveness
    clock: Callable[[], float] = time.time
    says: str = "watching for new and removed models"  # one sentence in the present tense
    _came_at: float | None = None  # Unix seconds since which ComfyUI has something that it was not asked about
    _not_before: float = 0.0  # Unix seconds

    def run(self) -> None:
        while not self.shutdown.draining.wait(LOOK_EVERY):
            self.liveness.beat()
            self.look()
        self.says = "stopped"

    def look(self) -> None:
        """Look once, and ask ComfyUI if it is time to; blocks for that at most."""
        now = self.clock()
        came = self.folder_watch.changed()
        if self._came_at is None and (came or self._has_room()):
            self._came_at = now
        if self._is_time(now):
            self._ask()
        waits = self._came_at is not None or self.folder_watch.unsettled
        self.says = "waiting to advertise new models" if waits else "watching for new and removed models"

    def _is_time(self, now: float) -> bool:
        if now < self._not_before or self.folder_watch.unsettled or not self.host.ready.is_set():
            return False
        rests = all(task.answered or task.rendered_at for task in self.ledger.view())
        if self._came_at is not None:
            return rests or now - self._came_at >= PATIENCE
        return rests and now - self.capabilities.refreshed_at >= (
            ASK_EVERY if self.capabilities.runnable else ASK_HUNGRY
        )

    def _has_room(self) -> bool:
        """Whether the disk has room again for a workflow that lacked it."""
        wanted, free = self.capabilities.disk_wanted, self.disk.free()
        return wanted is not None and free is not None and free >= wanted

    def _ask(self) -> None:
        self.says = "reading ComfyUI's node list"
        self.liveness.beat(REMOTE)
        try:
            self.host.ask_again(self._judge)
        except ComfyDown as down:
            self._not_before = self.clock() + RETRY
            log.warning("capabilities_not_refreshed", reason=down.message, hint=down.hint, next=f"in {RETRY:.0f} s")
        else:
            self._came_at = None

    def _judge(self, object_info: dict[str, Any], stats: Stats) -> None:
        if self.capabilities.refresh(object_info, stats, free_disk=self.disk.free()):
            self.ledger.wake()  # it may wait for something that it can offer
