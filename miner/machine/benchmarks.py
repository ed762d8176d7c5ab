"""The results of `xalora-miner bench` on this machine, for prefetch and the dashboard.

One JSON file in the state folder. Promises: reading never fails; missing, damaged or another card's results are
unknown. Losing the file costs another bench.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miner.task.errors import MachineFault

FILE = "bench.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One workflow with default parameters. Seconds are ComfyUI's own for one task, as the worker counts them."""

    workflow: str
    cold: float  # its models on the disk
    warm: float  # its models in memory; the mean of `runs`
    runs: int
    peak_memory: int | None  # bytes in use on the card; None without NVML
    device: str  # ComfyUI's name of it
    comfyui: str  # its version
    at: float  # Unix seconds

    @property
    def tasks_an_hour(self) -> float:
        """Warm, one after the other: the worker prepares and delivers while the GPU renders."""
        return 3600.0 / max(self.warm, 0.001)


def read(state: Path) -> dict[str, Measurement]:
    """By workflow. Reads one small file; raises nothing."""
    try:
        document = json.loads((state / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return parse(document)


def parse(document: Any) -> dict[str, Measurement]:
    """The valid measurements of a document, by workflow. Pure."""
    rows = document.get("workflows") if isinstance(document, dict) and document.get("schema") == _SCHEMA else None
    found: dict[str, Measurement] = {}
    for row in rows if isinstance(rows, list) else ():
        with suppress(TypeError, ValueError, KeyError):
            one = Measurement(**{name: row[name] for name in Measurement.__dataclass_fields__})
            if all(type(seconds) in (int, float) and 0 < seconds < math.inf for seconds in (one.cold, one.warm)):
                found[str(one.workflow)] = one
    return found


def warm_seconds(measured: Mapping[str, Measurement], *, device: str) -> dict[str, float]:
    """Seconds of a warm render by workflow, measured on `device` (ComfyUI's name of it). Pure."""
    return {name: one.warm for name, one in measured.items() if one.device == device}


def write(state: Path, new: Iterable[Measurement]) -> Path:
    """Save measurements over older ones of the same workflows. Returns the file.

    Raises MachineFault for disk errors; the old file stays.
    """
    rows = read(state) | {one.workflow: one for one in new}
    return save(state / FILE, {"schema": _SCHEMA, "workflows": [asdict(one) for one in rows.values()]})


def save(target: Path, document: Mapping[str, Any]) -> Path:
    """Write `document` as JSON, whole or not at all. Returns `target`. Raises MachineFault for disk errors."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        hint = "free some disk space, or check the permissions of the state folder"
        raise MachineFault(f"cannot write {target}: {error.strerror}", hint=hint) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return target
