"""What is looked at every few seconds, and what a run of such samples says: medians and slopes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.support import proc

WARMUP = 0.1  # of a run: pools fill, caches and imports settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The worker and what it writes to, at one moment. MB are 10**6 bytes."""

    at: float  # seconds since the start
    tasks: int  # answered so far
    threads: int
    files: int  # open ones that are no sockets
    sockets: int
    rss: float  # MB
    pss: float  # MB
    cpu: float  # seconds so far
    journal: float  # MB: the database and its write-ahead log
    state: float  # MB on disk, the journal aside
    comfyui: float  # MB on disk in ComfyUI's folders
    comfyui_files: int
    comfyui_rss: float  # MB


def take(*, at: float, tasks: int, worker: int, comfyui: int, state: Path, folder: Path) -> Sample:
    """`worker` and `comfyui` are pids; `folder` has ComfyUI's folders, and may lie in `state`."""
    files, sockets = proc.open_files(worker)
    journal = sum(size for path, size in _files(state) if path.name.startswith("journal.db"))
    in_comfyui = [size for path, size in _files(folder) if path.parts[len(folder.parts)] in ("input", "output", "temp")]
    return Sample(
        at=at,
        tasks=tasks,
        threads=proc.threads(worker),
        files=files,
        sockets=sockets,
        rss=proc.rss(worker),
        pss=proc.pss(worker),
        cpu=proc.cpu_seconds(worker),
        journal=journal / 1e6,
        state=(sum(size for path, size in _files(state) if folder not in path.parents) - journal) / 1e6,
        comfyui=sum(in_comfyui) / 1e6,
        comfyui_files=len(in_comfyui),
        comfyui_rss=proc.rss(comfyui),
    )


def _files(folder: Path) -> list[tuple[Path, int]]:
    """Every file with its bytes on disk. What is deleted meanwhile is left out."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found.append((Path(place, name), os.lstat(Path(place, name)).st_blocks * 512))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One figure over a run, its warm-up left out."""

    first: float  # median of the first quarter
    last: float  # median of the last one
    slope: float  # an hour, by least squares

    @classmethod
    def of(cls, at: Sequence[float], values: Sequence[float]) -> Trend:
        """`at` in seconds. Needs two values at two moments."""
        quarter = max(1, len(values) // 4)
        slope = statistics.linear_regression(at, values).slope * 3600
        return cls(first=statistics.median(values[:quarter]), last=statistics.median(values[-quarter:]), slope=slope)


def trends(samples: Sequence[Sample]) -> dict[str, Trend]:
    """Figure → its trend."""
    settled = [sample for sample in samples if sample.at >= samples[-1].at * WARMUP]
    at = [sample.at for sample in settled]
    names = ("threads", "files", "sockets", "rss", "pss", "journal", "state", "comfyui", "comfyui_files", "comfyui_rss")
    found = {name: Trend.of(at, [getattr(sample, name) for sample in settled]) for name in names}
    for name, unit in (("cpu", 100.0), ("tasks", 60.0)):  # percent of a core; a minute
        rates = [(b.at, unit * (getattr(b, name) - getattr(a, name)) / (b.at - a.at)) for a, b in pairwise(settled)]
        found[name] = Trend.of([moment for moment, _ in rates], [rate for _, rate in rates])
    return found
