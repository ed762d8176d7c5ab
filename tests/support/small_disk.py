"""A small disk under a folder, to be filled or made read-only. Needs the right to mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class SmallDisk:
    """A tmpfs of such a `size` ("32m", "256k") on `folder`, which exists.

    `mounted` is False where this user may not mount one.
    """

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        self.mounted = _run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is left."""
        ballast = self.folder / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                step = shutil.disk_usage(self.folder).free
                while step >= 4096:
                    try:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), step)
                    except OSError:
                        step //= 2
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written, as after an error of the disk. It waits for files that are being written."""
        until = time.monotonic() + 5.0
        while not (done := _run("mount", "-o", "remount,ro", str(self.folder))) and time.monotonic() < until:
            time.sleep(0.01)
        try:
            yield
        finally:
            if done:
                subprocess.run(["mount", "-o", "remount,rw", str(self.folder)], check=True)

    def close(self) -> None:
        if self.mounted:
            _run("umount", "--lazy", str(self.folder))


def _run(*command: str) -> bool:
    with suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False
