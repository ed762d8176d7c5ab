"""The disk's own troubles, in words, and whether there is room."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from miner.models.catalogue import GIGABYTE, FileStatus
from miner.task.errors import MachineFault

_MAKE_ROOM = "make room, for example with `xalora-miner models prune`"
_HINTS = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EACCES: "give this user the right to write there, or set XALORA_MODELS_DIR",
    errno.EROFS: "mount it so that it can be written, or set XALORA_MODELS_DIR",
    errno.EIO: "look at the disk's health: `dmesg` and `smartctl` tell",
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Makes an OSError of what happens to `path` a MachineFault with its cure."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise MachineFault(f"{error.filename or path}: {error.strerror or error}", hint=hint) from error


def require_room(statuses: Iterable[FileStatus], *, keep_free: int, freeable: int) -> None:
    """Raises MachineFault if a disk has no room for what is lacking and `keep_free` bytes beside it.

    `freeable` is what `prune` could free, in bytes, for the hint. A size that nobody knows yet counts as nothing here;
    `require_free` is asked once the server has told it.
    """
    wanted: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for status in statuses:
        folder = _standing(status.path.parent)
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        wanted[device] = wanted.get(device, 0) + status.missing_bytes
    for device, missing in wanted.items():
        free = shutil.disk_usage(folders[device]).free
        if missing and missing + keep_free > free:
            raise MachineFault(
                f"{_gb(missing)} are to be downloaded, and {_gb(free)} are free at {folders[device]}"
                f" ({_gb(keep_free)} have to stay free: miner.min_free_disk_gb)",
                hint=_room_hint(freeable),
            )


def require_free(folder: Path, size: int) -> None:
    """Raises MachineFault if `size` bytes do not fit onto the disk of `folder`, which is there."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise MachineFault(f"{_gb(size)} are to be downloaded, and {_gb(free)} are free at {folder}", hint=_MAKE_ROOM)


def _room_hint(freeable: int) -> str:
    if freeable:
        return f"`xalora-miner models prune` would free {_gb(freeable)}"
    return "use a larger disk (XALORA_MODELS_DIR), or name fewer workflows; prune would free nothing"


def _standing(folder: Path) -> Path:
    """The nearest folder on the way to `folder` that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB"


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
