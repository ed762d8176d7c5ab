"""The disk's free space, looked at now and then: with too little of it no task is taken."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY = 5.0  # seconds


@dataclass(slots=True, kw_only=True)
class Disk:
    """The file systems that a lane writes to. Any thread may ask."""

    folders: Collection[Path]
    least_gb: float  # 10**9 bytes that have to be free on each
    clock: Callable[[], float] = time.monotonic
    _looked_at: float = float("-inf")
    _free: int | None = None

    def free(self) -> int | None:
        """Bytes that are free on the fullest of them, at most LOOK_EVERY seconds ago; None where none is there."""
        if self.clock() - self._looked_at >= LOOK_EVERY:
            free = [shutil.disk_usage(folder).free for folder in self.folders if folder.is_dir()]
            self._free = min(free, default=None)
            self._looked_at = self.clock()  # last: who comes meanwhile looks, too
        return self._free

    def low(self) -> bool:
        """Whether one of them has too little room, at most LOOK_EVERY seconds ago."""
        free = self.free()
        return free is not None and free < self.least_gb * 1e9
