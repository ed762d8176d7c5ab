"""The model files: missing or damaged ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from miner.doctor.facts import Facts
from miner.doctor.report import good, note, warning
from miner.models.catalogue import FileStatus
from miner.models.lora_shelf import Kept
from miner.task.errors import ConfigError
from miner.telemetry.health import Mark
from miner.telemetry.sizes import gb
from miner.workflows.lora_names import title


def models(facts: Facts) -> Iterator[Mark]:
    """By size, head and known hashes; `doctor --verify` computes unknown ones first. A hash is known while the size and
    modification time of its file stay the same."""
    model_files = facts.model_files()
    if model_files.root is not None:
        yield from model_marks(model_files.root, facts.wanted_files())
        if model_files.lora_bases or model_files.on_demand:
            yield good("LoRAs", lora_words(model_files.lora_bases, model_files.on_demand))
        for name, flaw in model_files.broken_loras.items():
            yield warning("LoRAs", f"{name} is broken and not offered: {flaw}", "delete it and download it again")
    elif isinstance(model_files.error, ConfigError):
        yield note("Models", model_files.error.message, model_files.error.hint)
    elif model_files.error is not None:
        yield warning(
            "Models", model_files.error.message, model_files.error.hint or "check the disk of the models folder"
        )


def lora_words(bases: Mapping[str, str], on_demand: Sequence[Kept]) -> str:
    """How many LoRAs there are for which base model, and what is kept of those that tasks named. Pure."""
    counts = Counter(title(base) if base else "an unknown base" for base in bases.values())
    installed = ", ".join(f"{count} for {base}" for base, count in counts.most_common())
    kept = f"{len(on_demand)} that tasks named, {gb(sum(one.size for one in on_demand))}" if on_demand else ""
    return "; ".join(filter(None, (installed, kept)))


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
