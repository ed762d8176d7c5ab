"""Which files could go: those that cost nothing but a download to have again.

A file is spare only if a known workflow names it, no enabled one needs it, this miner downloaded it into its own
models folder, and nobody changed it since. So a LoRA, a file that somebody put there, and a file of a workflow that is
no longer known all stay. Of downloads that broke off, the same holds, and nobody may be at it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from miner.models.catalogue import spare
from miner.models.disk import disk_errors
from miner.models.hash_db import Records
from miner.models.partial_file import is_held, note_of, part_of
from miner.models.store import Store
from miner.workflows import Library


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A file that could go."""

    path: Path
    size: int  # bytes
    needed_by: tuple[str, ...]  # known workflows, none of which is enabled


def spares(library: Library, *, enabled: Collection[str], store: Store, records: Records) -> tuple[Spare, ...]:
    """What could go. Reads the disk. Raises MachineFault."""
    found: list[Spare] = []
    for file in spare(library.workflows, enabled):
        target = store.target(file)
        with disk_errors(target):
            if records.downloaded_hash(target):
                found.append(Spare(path=target, size=target.stat().st_size, needed_by=file.needed_by))
            part = part_of(target)
            if note_of(target).is_file() and part.is_file() and not is_held(target):
                found.append(Spare(path=part, size=part.stat().st_size, needed_by=file.needed_by))
    return tuple(found)


def remove(one: Spare, records: Records) -> None:
    """Delete it for good. Raises MachineFault."""
    with disk_errors(one.path):
        one.path.unlink(missing_ok=True)
        one.path.with_name(one.path.name + ".json").unlink(missing_ok=True)  # the note of a part
    records.forget(one.path)
