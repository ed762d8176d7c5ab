"""The folder of the LoRAs that tasks named, and its index.

Promises: a file has the hash of its content as its name, so that ComfyUI, which keeps a loaded LoRA by its path, never
takes it for another; it gets that name once it is complete, checked and on the disk. Of two miners that share a models
folder, each has a subfolder of its own, by flock(2). What a crash left half done is deleted at the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO

import structlog

from miner.comfy.weights import ON_DEMAND
from miner.models.disk import disk_errors, sync_folder
from miner.models.lora_shelf import Kept
from miner.task.errors import MachineFault

log = structlog.get_logger()

INDEX = "index.json"
SLOTS = 64  # miners that can share a models folder


class LoraFolder:
    """One miner's. `open` once, then call from one thread at a time."""

    def __init__(self, root: Path) -> None:
        """`root`: the models folder."""
        self._all = root / "loras" / ON_DEMAND
        self._lock: IO[bytes] | None = None
        self.path = self._all / "0"

    def open(self) -> dict[str, Kept]:
        """Take the first subfolder that no miner has, and what is in it. Raises MachineFault."""
        for slot in range(SLOTS):
            self.path = self._all / str(slot)
            with disk_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                lock = (self.path / ".lock").open("ab")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.close()
                    continue
            self._lock = lock
            return self._tidied()
        raise MachineFault(f"{self._all}: {SLOTS} miners use it already", hint="give each its own XALORA_MODELS_DIR")

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def comfy_name(self, sha256: str) -> str:
        """The file's name in ComfyUI's list."""
        return f"{ON_DEMAND}/{self.path.name}/{_name(sha256)}"

    def partial(self, key: str) -> Path:
        """Where a download is written."""
        return self.path / f"{key[:40]}.part"

    def has(self, kept: Kept) -> bool:
        try:
            return (self.path / _name(kept.sha256)).stat().st_size == kept.size
        except OSError:
            return False

    def adopt(self, partial: Path, sha256: str) -> None:
        """Give a complete file its name. Raises MachineFault."""
        with disk_errors(partial):
            partial.rename(self.path / _name(sha256))
            sync_folder(self.path)

    def touch(self) -> None:
        """Change the folder's time: a list that ComfyUI made within the same tick of the clock would stay as it is."""
        with disk_errors(self.path):
            os.utime(self.path)

    def remove(self, kept: Kept) -> None:
        with disk_errors(self.path):
            (self.path / _name(kept.sha256)).unlink(missing_ok=True)

    def save(self, shelf: Iterable[Kept]) -> None:
        """Write the index, whole or not at all. Raises MachineFault."""
        fresh = self.path / f"{INDEX}.new"
        with disk_errors(fresh):
            fresh.write_text(json.dumps([{**asdict(one), "keys": sorted(one.keys)} for one in shelf]), encoding="utf-8")
            fresh.replace(self.path / INDEX)

    def _tidied(self) -> dict[str, Kept]:
        found = {one.sha256: one for one in read_index(self.path) if self.has(one)}
        names = {_name(sha256) for sha256 in found}
        with disk_errors(self.path):
            for path in self.path.iterdir():
                if path.is_file() and path.suffix in (".part", ".safetensors", ".new") and path.name not in names:
                    path.unlink()
        return found


def read_index(path: Path) -> list[Kept]:
    """What an index says, whether or not the files are there; nothing where it is missing or damaged."""
    try:
        rows = json.loads((path / INDEX).read_text(encoding="utf-8"))
        return [Kept(**{**row, "keys": frozenset(row["keys"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def kept_in(root: Path) -> list[Kept]:
    """What every miner keeps in a models folder, the last used first. Only reads."""
    try:
        slots = [slot for slot in (root / "loras" / ON_DEMAND).iterdir() if slot.is_dir()]
    except OSError:
        return []
    kept = [one for slot in slots for one in read_index(slot) if (slot / _name(one.sha256)).is_file()]
    return sorted(kept, key=lambda one: one.used_at, reverse=True)


def _name(sha256: str) -> str:
    return f"{sha256[:40]}.safetensors"
