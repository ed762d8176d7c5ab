"""The weights: which are there, and whether they are what they should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from miner.doctor.facts import Facts
from miner.doctor.report import good, note, warning
from miner.models.catalogue import Look, gb
from miner.task.errors import ConfigError
from miner.telemetry.health import Mark


def models(facts: Facts) -> Iterator[Mark]:
    """By size and by the hashes that are known; `doctor --verify` takes the others first. A hash is known for a file
    as long as its size and time of change stay."""
    shelf = facts.shelf()
    if shelf.root is not None:
        yield from shelved(shelf.root, shelf.looks)
    elif isinstance(shelf.trouble, ConfigError):
        yield note("Models", shelf.trouble.message, shelf.trouble.hint)
    elif shelf.trouble is not None:
        yield warning("Models", shelf.trouble.message, shelf.trouble.hint or "see the disk of the models folder")


def shelved(root: Path, looks: Sequence[Look]) -> Iterator[Mark]:
    """Pure."""
    absent = [look for look in looks if look.state in ("missing", "partial")]
    damaged = [look for look in looks if look.state == "differs"]
    for look in damaged:
        cure = f"move {look.path} away, then run xalora-miner models pull"
        yield warning("Models", f"{look.file.place} is not the file that it should be: {look.why}", cure)
    if absent:
        names = ", ".join(look.file.place for look in absent)
        lacking = gb(sum(look.lacks for look in absent))
        says = f"{len(absent)} of {len(looks)} files are missing in {root}, {lacking}: {names}"
        yield warning("Models", says, "xalora-miner models pull")
    elif not looks:
        yield good("Models", "the enabled workflows need none")
    elif not damaged:
        yield good("Models", f"all {len(looks)} files are in {root}, {gb(sum(look.have for look in looks))}")
