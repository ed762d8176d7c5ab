"""The files that can be deleted, since another download brings them back.

A file is unused only if a known workflow names it, no enabled one needs it on this machine's cards, this miner
downloaded it into its own models folder, and it is unchanged since. So LoRAs, the operator's own files and files of
unknown workflows stay. The same holds for partial downloads, unless a process is at work on one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from miner.models.catalogue import unneeded
from miner.models.disk import disk_errors
from miner.models.hash_db import HashDatabase
from miner.models.partial_file import is_locked, origin_path, partial_path
from miner.models.store import Store
from miner.workflows import Library, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedFile:
    """A file that can be deleted."""

    path: Path
    size: int  # bytes
    needed_by: tuple[str, ...]  # known workflows, none of which wants it here


def unused_files(
    library: Library, *, kept: Iterable[Workflow], store: Store, hash_db: HashDatabase
) -> tuple[UnusedFile, ...]:
    """The files that can be deleted, since none of `kept` needs them. Reads the disk. Raises MachineFault."""
    found: list[UnusedFile] = []
    for file in unneeded(library.workflows, kept):
        target = store.target(file)
        with disk_errors(target):
            if hash_db.downloaded_hash(target):
                found.append(UnusedFile(path=target, size=target.stat().st_size, needed_by=file.needed_by))
            partial = partial_path(target)
            if origin_path(target).is_file() and partial.is_file() and not is_locked(target):
                found.append(UnusedFile(path=partial, size=partial.stat().st_size, needed_by=file.needed_by))
    return tuple(found)


def remove(one: UnusedFile, hash_db: HashDatabase) -> None:
    """Delete it. Raises MachineFault."""
    with disk_errors(one.path):
        one.path.unlink(missing_ok=True)
        one.path.with_name(one.path.name + ".json").unlink(missing_ok=True)  # a partial file's origin
    hash_db.forget(one.path)
