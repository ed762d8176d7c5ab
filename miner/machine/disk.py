"""Free disk space: below the operator's minimum, no task is taken."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from miner.telemetry.sizes import GIGABYTE

LOOK_EVERY = 5.0  # seconds


def existing_folder(path: Path) -> Path:
    """`path` where it is a folder, else its nearest parent that exists. Raises OSError where a parent is unreadable."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def free_bytes(path: Path) -> int:
    """Free bytes of the file system that `path` is on, or would be on. Raises OSError."""
    return shutil.disk_usage(existing_folder(path)).free


def least_free(folders: Iterable[Path]) -> int | None:
    """Free bytes of the fullest file system that one of `folders` is on; None where none of them exists."""
    return min((free_bytes(folder) for folder in folders if folder.is_dir()), default=None)


@dataclass(slots=True, kw_only=True)
class Disk:
    """The file systems that a lane writes to. Any thread may ask."""

    folders: Collection[Path]
    least_gb: float  # 10**9 bytes that have to stay free on each
    clock: Callable[[], float] = time.monotonic
    _looked_at: float = float("-inf")
    _free: int | None = None

    def free(self) -> int | None:
        """Free bytes on the fullest of them, at most LOOK_EVERY seconds old; None where none of the folders exists."""
        if self.clock() - self._looked_at >= LOOK_EVERY:
            self._free = least_free(self.folders)
            self._looked_at = self.clock()  # last, so that another thread meanwhile looks too
        return self._free

    def low(self) -> bool:
        """Whether one of them has less than `least_gb` free, at most LOOK_EVERY seconds ago."""
        free = self.free()
        return free is not None and free < self.least_gb * GIGABYTE
