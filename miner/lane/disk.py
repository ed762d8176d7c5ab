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
    """The file systems that a lane writes to."""

    folders: Collection[Path]
    least_gb: float  # 10**9 bytes that have to be free on each
    clock: Callable[[], float] = time.monotonic
    _looked_at: float = float("-inf")
    _low: bool = False

    def low(self) -> bool:
        """Whether one of them has too little room, at most LOOK_EVERY seconds ago."""
        if self.clock() - self._looked_at >= LOOK_EVERY:
            self._looked_at = self.clock()
            free = [shutil.disk_usage(folder).free for folder in self.folders if folder.is_dir()]
            self._low = min(free, default=self.least_gb * 1e9) < self.least_gb * 1e9
        return self._low
