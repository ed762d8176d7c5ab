"""`make soak`: keep a miner at full speed, and print how what it holds at the end compares with the beginning.

Exits with 1 where threads, files or sockets have become more, or memory or the files in ComfyUI's folders grow. The
journal grows by each task: that is the history, which `[state] keep_days` bounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.campaigns.soak.samples import Sample, Trend, trends
from tests.campaigns.soak.soak import SoakTestbed, soak
from tests.support.comfyui import Installed

MORE = 2.0  # threads, files or sockets between the medians: what is in hand differs by that
RSS_SLOPE = 10.0  # MB an hour; the history's index in memory is part of it
RSS_NOISE = 5.0  # MB, whatever the slope: a short run has little else
FILES_LEFT = 20.0  # in ComfyUI's folders between the medians: those of tasks in hand

UNITS = {
    **dict.fromkeys(("rss", "pss", "journal", "state", "comfyui", "comfyui_rss"), "MB"),
    "cpu": "% of a core",
    "tasks": "a minute",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--managed", action="store_true", help="the miner starts ComfyUI")
    parser.add_argument("--json", type=Path, help="also write samples and trends here")
    Installed.add_to(parser)
    asked = parser.parse_args()
    installed = Installed.asked_for(asked)
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        SoakTestbed(Path(folder), installed=installed, managed=asked.managed) as testbed,
    ):
        samples = soak(testbed, seconds=asked.minutes * 60, every=asked.every, seed=asked.seed, say=_tell)
    found = trends(samples)
    growing = list(grown(found, hours=(samples[-1].at - samples[0].at) / 3600))
    print(table(found, samples))
    print("\n".join(f"grows: {what}" for what in growing) or "flat")
    if asked.json:
        report = {
            "comfyui": str(installed.home) if installed else "embedded engine",
            "managed": asked.managed,
            "journal_bytes_a_task": bytes_a_task(samples),
            "trends": {name: asdict(trend) for name, trend in found.items()},
            "grows": growing,
            "samples": [asdict(sample) for sample in samples],
        }
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if growing else 0


def _tell(sample: Sample) -> None:
    print(
        f"{sample.at:6.0f} s {sample.tasks:7} tasks  {sample.threads} threads  {sample.files} files "
        f"{sample.sockets} sockets  RSS {sample.rss:.1f} MB  journal {sample.journal:.1f} MB  "
        f"ComfyUI {sample.comfyui_files} files, RSS {sample.comfyui_rss:.0f} MB",
        flush=True,
    )


def grown(found: Mapping[str, Trend], *, hours: float) -> Iterator[str]:
    """What has grown over so many hours, in words."""
    limits = {**dict.fromkeys(("threads", "files", "sockets"), MORE), "comfyui_files": FILES_LEFT}
    for name, most in limits.items():
        if found[name].last - found[name].first > most:
            yield f"{name}: from {found[name].first:g} to {found[name].last:g}"
    if found["rss"].slope * hours > max(RSS_SLOPE * hours, RSS_NOISE):
        yield f"RSS: by {found['rss'].slope:.1f} MB an hour"


def bytes_a_task(samples: Sequence[Sample]) -> float:
    """The journal's growth; its write-ahead log comes and goes, so a short run says little."""
    tasks = samples[-1].tasks - samples[0].tasks
    return round((samples[-1].journal - samples[0].journal) * 1e6 / max(tasks, 1), 1)


def table(found: Mapping[str, Trend], samples: Sequence[Sample]) -> str:
    head = f"{'':16}{'first quarter':>14}{'last quarter':>14}{'an hour':>12}"
    rows = [
        f"{name.replace('_', ' '):16}{trend.first:14.1f}{trend.last:14.1f}{trend.slope:+12.2f}  {UNITS.get(name, '')}"
        for name, trend in found.items()
    ]
    last = samples[-1]
    journal = (
        f"{last.tasks} tasks in {last.at / 60:.0f} min; the journal takes {bytes_a_task(samples):.0f} bytes a task"
    )
    return "\n".join([head, *rows, journal])


if __name__ == "__main__":
    sys.exit(main())
