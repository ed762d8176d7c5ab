"""`python -m tests.campaigns.fleet`: what a sequencer sees from N miners, and what they do to it after an outage.

Markdown tables on stdout, progress on stderr. Exit codes: 0, after no outage was any second busier than three times
the mean; 1, one was.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from tests.campaigns.fleet.simulation import Scenario, simulate
from tests.campaigns.fleet.study import scenarios
from tests.campaigns.fleet.table import Run, bearable, label, tables


def main() -> int:
    asked = _arguments()
    gc.disable()  # a run makes no garbage in cycles until it is over, and looking for it takes a third of the time
    runs = [
        _run(scenario)
        for miners in sorted(set(asked.miners))
        for wait in ((False, True) if asked.wait is None else (asked.wait,))
        for scenario in scenarios(miners, wait=wait, seed=asked.seed)
    ]
    print(tables(runs))
    if asked.json:
        asked.json.write_text(json.dumps([_plain(run) for run in runs], indent=2) + "\n")
    return 0 if all(bearable(run) for run in runs) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.fleet", description="Simulates a fleet of miners.")
    parser.add_argument("--miners", type=int, nargs="+", default=[1000], metavar="N", help="how many (1000)")
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
    print(f"{scenario.miners:,} miners, {label(scenario)}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return scenario, figures


def _plain(run: Run) -> dict[str, Any]:
    scenario, figures = run
    values = {name: None if isnan(value) else value for name, value in asdict(figures).items()}
    return {**asdict(scenario), **values, "ratio": figures.ratio}


if __name__ == "__main__":
    sys.exit(main())
