"""Disk errors with a hint, and checks for free space."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from miner.machine.disk import existing_folder, free_bytes
from miner.models.catalogue import FileStatus
from miner.task.errors import MachineFault
from miner.telemetry.sizes import gb

_FREE_SPACE = "free some space, for example with `xalora-miner models prune`"
_HINTS = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EACCES: "give this user write permission there, or set XALORA_MODELS_DIR",
    errno.EROFS: "mount it writable, or set XALORA_MODELS_DIR",
    errno.EIO: "check the disk's health with `dmesg` and `smartctl`",
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError about `path` into a MachineFault with a hint."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise MachineFault(f"{error.filename or path}: {error.strerror or error}", hint=hint) from error


def require_room(statuses: Iterable[FileStatus], *, keep_free: int, freeable: int) -> None:
    """Raises MachineFault if a disk has no room for the missing files plus `keep_free` bytes.

    `freeable`: bytes that `prune` could free, for the hint. An unknown size counts as 0; `require_free` checks it once
    the server tells it.
    """
    wanted: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for status in statuses:
        folder = existing_folder(status.path.parent)
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        wanted[device] = wanted.get(device, 0) + status.missing_bytes
    for device, missing in wanted.items():
        free = free_bytes(folders[device])
        if missing and missing + keep_free > free:
            raise MachineFault(
                f"the download needs {gb(missing)} and {folders[device]} has {gb(free)} free"
                f" ({gb(keep_free)} must stay free: miner.min_free_disk_gb)",
                hint=_room_hint(freeable),
            )


def require_free(folder: Path, size: int) -> None:
    """Raises MachineFault if `size` bytes do not fit on the disk of `folder`."""
    free = free_bytes(folder)
    if size > free:
        raise MachineFault(f"the download needs {gb(size)} and {folder} has {gb(free)} free", hint=_FREE_SPACE)


def _room_hint(freeable: int) -> str:
    if freeable:
        return f"`xalora-miner models prune` would free {gb(freeable)}"
    return "use a larger disk (XALORA_MODELS_DIR) or enable fewer workflows; prune would free nothing"


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
