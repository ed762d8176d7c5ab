"""`python -m tests.campaigns.bench`: measures what the issues ask for, prints one table, and writes it to bench.json.

Exit codes: 0, everything was measured; 1, with --strict, a bound is not met; 2, something could not be measured.
COMFYUI_URL has throughput measured on a real ComfyUI, whose output folder then holds the bench's pictures.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from miner import __version__
from miner.comfy.client import ComfyClient
from tests.campaigns.bench import big, decoder, idle, journal, lanes, memory, start, throughput, verdicts
from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Row, render, write
from tests.campaigns.bench.testbed import BenchTestbed

WIDTH = 160  # columns, where there is no terminal


def main() -> int:
    parser = _parser()
    asked = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode, and so must ours
    comfyui = os.environ.get("COMFYUI_URL", "").rstrip("/")
    wanted = [one for one in _measurements(comfyui) if one.wanted(asked.only)]
    if not wanted:
        parser.error(f"--only {asked.only}: no case has that in its name")
    about = _about(quick=asked.quick, comfyui=comfyui)
    with (
        tempfile.TemporaryDirectory(prefix="xalora-bench-") as folder,
        BenchTestbed(Path(folder), quick=asked.quick) as testbed,
    ):
        rows = _measure(wanted, testbed)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(render(rows))
    write(asked.json, rows, about=about)
    console.print(f"{_explained(about)} The same is in {asked.json}.", highlight=False)
    if any(row.found is None for row in rows):
        return 2
    return 1 if asked.strict and any(row.met is False for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.bench", description="Measures the worker.")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only measurements with such a case's name")
    parser.add_argument("--quick", action="store_true", help="shorter runs, and so less certain figures")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a bound is not met")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE")
    return parser


def _measurements(comfyui: str) -> Sequence[Measurement]:
    return tuple(
        chain(
            start.measurements(),
            journal.measurements(),
            verdicts.measurements(comfyui),
            throughput.measurements(comfyui),
            idle.measurements(),
            memory.measurements(),
            decoder.measurements(),
            big.measurements(),
            lanes.measurements(),
        )
    )


def _measure(wanted: Sequence[Measurement], testbed: BenchTestbed) -> list[Row]:
    """One after the other; which one it is shows on stderr."""
    console, rows = Console(stderr=True), list[Row]()
    with console.status("") as status:
        for measurement in wanted:
            status.update(measurement.cases[0].name)
            rows += measurement.rows(testbed)
            if not console.is_terminal:
                console.print(f"{measurement.cases[0].name}: {rows[-1].seconds:.0f} s")
    return rows


def _about(*, quick: bool, comfyui: str) -> dict[str, Any]:
    return {
        "version": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "comfyui": f"{ComfyClient(comfyui, client_id='bench').stats().version} at {comfyui}" if comfyui else None,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),  # before the first measurement: what others use of the machine
    }


def _explained(about: dict[str, Any]) -> str:
    runs = ", --quick" if about["quick"] else ""
    runs += f"; throughput on ComfyUI {about['comfyui']}" if about["comfyui"] else ""
    return (
        f"xalora-miner {about['version']}, Python {about['python']}, {about['cores']} cores, load {about['load']:.1f} "
        f"before the start{runs}. The engine's graphs wait and do not compute, as with a GPU. Idle gaps are from one "
        "execution_success to the next execution_start, by the time stamps (whole ms) in ComfyUI's history. "
        "MB are 10**6 bytes."
    )


if __name__ == "__main__":
    sys.exit(main())
