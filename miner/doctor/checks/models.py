"""The model files: missing or damaged ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from miner.doctor.facts import Facts
from miner.doctor.report import good, note, warning
from miner.models.catalogue import FileStatus
from miner.task.errors import ConfigError
from miner.telemetry.health import Mark
from miner.telemetry.sizes import gb


def models(facts: Facts) -> Iterator[Mark]:
    """By size, head and known hashes; `doctor --verify` computes unknown ones first. A hash is known while the size and
    modification time of its file stay the same."""
    model_files = facts.model_files()
    if model_files.root is not None:
        yield from model_marks(model_files.root, facts.wanted_files())
        for name, flaw in model_files.broken_loras.items():
            yield warning("LoRAs", f"{name} is broken and not offered: {flaw}", "delete it and download it again")
    elif isinstance(model_files.error, ConfigError):
        yield note("Models", model_files.error.message, model_files.error.hint)
    elif model_files.error is not None:
        yield warning(
            "Models", model_files.error.message, model_files.error.hint or "check the disk of the models folder"
        )


def model_marks(root: Path, statuses: Sequence[FileStatus]) -> Iterator[Mark]:
    """Pure."""
    absent = [status for status in statuses if status.state in ("missing", "partial")]
    damaged = [status for status in statuses if status.state in ("differs", "broken")]
    for status in damaged:
        cure = f"move {status.path} away, then run xalora-miner models pull"
        what = "broken" if status.state == "broken" else "another file or damaged"
        yield warning("Models", f"{status.file.relative_path} is {what}: {status.reason}", cure)
    if absent:
        names = ", ".join(status.file.relative_path for status in absent)
        lacking = gb(sum(status.missing_bytes for status in absent))
        says = f"{len(absent)} of {len(statuses)} files are missing in {root}, {lacking}: {names}"
        yield warning("Models", says, "xalora-miner models pull")
    elif not statuses:
        yield good("Models", "the enabled workflows need no files")
    elif not damaged:
        yield good(
            "Models", f"all {len(statuses)} files are in {root}, {gb(sum(status.present_bytes for status in statuses))}"
        )
