"""Checks present files by their hashes.

Promises: a file is read only if its hash is unknown for its size and modification time, or on request. Never: changes
or deletes a file; `pull` downloads a damaged one again.
"""

from __future__ import annotations

from miner.models.catalogue import FileStatus, ModelFile
from miner.models.digest import sha256_of
from miner.models.disk import disk_errors
from miner.models.hash_db import HashDatabase
from miner.models.progress import Progress, Stop
from miner.models.store import Store


def verified(
    file: ModelFile, *, store: Store, hash_db: HashDatabase, progress: Progress, stop: Stop, again: bool
) -> FileStatus:
    """The file's status by its hash; `again` reads it even where the hash is known.

    Blocks while it reads. Raises MachineFault for disk errors, and Stopped.
    """
    status = store.status(file, hash_db)
    if status.state != "present":
        return status
    with disk_errors(status.path):
        stat = status.path.stat()
        if again or not hash_db.hash_of(status.path):
            sha256 = sha256_of(
                status.path, stop=stop, on_read=lambda done: progress.update(file.relative_path, done, stat.st_size)
            )
            hash_db.add_hash(status.path, stat, sha256)
            status = store.status(file, hash_db)
    return status


def verdict(status: FileStatus, hash_db: HashDatabase) -> str:
    """What `models verify` prints of a file."""
    match status.state:
        case "present" if status.file.sha256 or hash_db.downloaded_hash(status.path):
            return "good"
        case "present":
            return "present; no hash is known to check it against"
        case "differs" | "broken":
            return f"DAMAGED: {status.reason}; move {status.path} away and run `xalora-miner models pull`"
    return "missing; run `xalora-miner models pull`"
