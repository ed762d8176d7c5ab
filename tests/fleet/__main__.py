"""`python -m tests.fleet`: what a sequencer sees from N miners, and what they do to it after an outage.

Two Markdown tables on stdout, progress on stderr. Exit codes: 0, after no outage was any second busier than three
times the mean; 1, one was.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from tests.fleet.figures import Figures
from tests.fleet.simulation import IDLE, Scenario, simulate
from tests.fleet.study import scenarios

AT_MOST = 3.0  # means, in any second after an outage

Run = tuple[Scenario, Figures]


def main() -> int:
    asked = _arguments()
    gc.disable()  # a run makes no garbage in cycles until it is over, and looking for it takes a third of the time
    runs = [
        _run(scenario)
        for miners in asked.miners
        for wait in ((False, True) if asked.wait is None else (asked.wait,))
        for scenario in scenarios(miners, wait=wait, seed=asked.seed)
    ]
    print("\n".join([*_steady(runs), "", *_events(runs)]))
    if asked.json:
        asked.json.write_text(json.dumps([_plain(run) for run in runs], indent=2) + "\n")
    return 0 if all(_bearable(run) is not False for run in runs) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description="Simulates a fleet of miners.")
    parser.add_argument(
        "--miners", type=int, nargs="+", default=[1000], metavar="N", help="how many; 1000 if not given"
    )
    parser.add_argument(
        "--wait", action=argparse.BooleanOptionalAction, help="only with, or only without, held requests; else both"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


def _run(scenario: Scenario) -> Run:
    began = time.monotonic()
    figures = simulate(scenario)
    gc.collect()
    about = f"{scenario.miners:,} miners, {_asks(scenario)}, {_load(scenario)}, {scenario.event.name}"
    print(f"{about}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return scenario, figures


def _steady(runs: Sequence[Run]) -> list[str]:
    """The figures of before, from the first run of each kind."""
    rows = ["| miners | requests are | load | requests/s | busiest second | to the lease, p50 | p99 |"]
    rows.append("| ---: | --- | --- | ---: | ---: | ---: | ---: |")
    seen = set()
    for scenario, f in runs:
        if (kind := (scenario.miners, _asks(scenario), _load(scenario))) not in seen:
            seen.add(kind)
            figures = f"{f.mean:,.0f} | {f.peak:,} | {f.lease_p50 * 1000:.1f} ms | {f.lease_p99 * 1000:.1f} ms"
            rows.append(f"| {kind[0]:,} | {kind[1]} | {kind[2]} | {figures} |")
    return rows


def _events(runs: Sequence[Run]) -> list[str]:
    rows = ["| miners | requests are | load | what happens | while down | after | later | half are back in | ≤ 3 |"]
    rows.append("| ---: | --- | --- | --- | ---: | ---: | ---: | ---: | --- |")
    for scenario, f in runs:
        fleet = f"{scenario.miners:,} | {_asks(scenario)} | {_load(scenario)}"
        outage = scenario.event.is_outage
        down = f"{f.missed_peak / f.mean:.1f}x" if outage else ""
        back = f"{f.back_p50:.0f} s" if outage else ""
        verdict = {True: "yes", False: "**no**", None: ""}[_bearable((scenario, f))]
        figures = f"{down} | {f.ratio:.1f}x | {f.later_peak / f.mean:.1f}x | {back} | {verdict}"
        rows.append(f"| {fleet} | {scenario.event.name} | {figures} |")
    return rows


def _bearable(run: Run) -> bool | None:
    """None where it was no outage."""
    scenario, figures = run
    return figures.ratio <= AT_MOST if scenario.event.is_outage else None


def _asks(scenario: Scenario) -> str:
    return "held" if scenario.numbers.wait else "polls"


def _load(scenario: Scenario) -> str:
    return "idle" if scenario.load == IDLE else "busy"


def _plain(run: Run) -> dict[str, Any]:
    scenario, figures = run
    values = {name: None if isnan(value) else value for name, value in asdict(figures).items()}
    return {**asdict(scenario), **values, "ratio": figures.ratio}


if __name__ == "__main__":
    sys.exit(main())
