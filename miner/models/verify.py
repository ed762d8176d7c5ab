"""Whether the files that are there are what they should be, by their hashes.

Promises: a file is read only if its hash is not known for its present size and time of change, or if asked. Never:
changes or deletes a file; `pull` brings a damaged one anew.
"""

from __future__ import annotations

from dataclasses import replace

from miner.models import safetensors
from miner.models.catalogue import FileStatus, ModelFile
from miner.models.digest import sha256_of
from miner.models.disk import disk_errors
from miner.models.hash_db import HashDatabase
from miner.models.progress import Progress, Stop
from miner.models.store import Store


def verified(
    file: ModelFile, *, store: Store, hash_db: HashDatabase, progress: Progress, stop: Stop, again: bool
) -> FileStatus:
    """The file's look, its hash considered; `again` reads it even where its hash is known.

    Blocks while it reads. Raises MachineFault where the disk cannot, and Stopped.
    """
    status = store.status(file, hash_db)
    if status.state != "there":
        return status
    with disk_errors(status.path):
        stat = status.path.stat()
        if again or not hash_db.hash_of(status.path):
            sha256 = sha256_of(
                status.path, stop=stop, at=lambda done: progress.update(file.relative_path, done, stat.st_size)
            )
            hash_db.hashed(status.path, stat, sha256)
            status = store.status(file, hash_db)
        flaw = safetensors.flaw_of(status.path) if file.name.endswith(".safetensors") else ""
    return replace(status, state="differs", reason=f"it {flaw}") if flaw and status.state == "there" else status


def verdict(status: FileStatus, hash_db: HashDatabase) -> str:
    """What there is to say of a verified look, and of what to do, for people."""
    match status.state:
        case "there" if status.file.sha256 or hash_db.downloaded_hash(status.path):
            return "good"
        case "there":
            return "there; no hash is known that could vouch for it"
        case "differs":
            return f"DAMAGED: {status.reason}; move {status.path} away and run `xalora-miner models pull`"
    return "not there; run `xalora-miner models pull`"
