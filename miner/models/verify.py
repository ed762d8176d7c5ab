"""Whether the files that are there are what they should be, by their hashes.

Promises: a file is read only if its hash is not known for its present size and time of change, or if asked. Never:
changes or deletes a file; `pull` brings a damaged one anew.
"""

from __future__ import annotations

from dataclasses import replace

from miner.models import safetensors
from miner.models.catalogue import Look, ModelFile
from miner.models.digest import sha256_of
from miner.models.disk import disk_errors
from miner.models.hash_db import Records
from miner.models.progress import Stop, Watch
from miner.models.store import Store


def verified(file: ModelFile, *, store: Store, records: Records, watch: Watch, stop: Stop, again: bool) -> Look:
    """The file's look, its hash considered; `again` reads it even where its hash is known.

    Blocks while it reads. Raises MachineFault where the disk cannot, and Stopped.
    """
    look = store.look(file, records)
    if look.state != "there":
        return look
    with disk_errors(look.path):
        stat = look.path.stat()
        if again or not records.hash_of(look.path):
            sha256 = sha256_of(look.path, stop=stop, at=lambda done: watch.at(file.place, done, stat.st_size))
            records.hashed(look.path, stat, sha256)
            look = store.look(file, records)
        flaw = safetensors.flaw_of(look.path) if file.name.endswith(".safetensors") else ""
    return replace(look, state="differs", why=f"it {flaw}") if flaw and look.state == "there" else look


def verdict(look: Look, records: Records) -> str:
    """What there is to say of a verified look, and of what to do, for people."""
    match look.state:
        case "there" if look.file.sha256 or records.downloaded_hash(look.path):
            return "good"
        case "there":
            return "there; no hash is known that could vouch for it"
        case "differs":
            return f"DAMAGED: {look.why}; move {look.path} away and run `xalora-miner models pull`"
    return "not there; run `xalora-miner models pull`"
