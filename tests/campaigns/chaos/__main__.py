"""`make chaos`: run a campaign, print what it showed, and end with 1 where a task was lost or answered twice."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tests.campaigns.chaos.campaign import Report, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the report here")
    parser.add_argument("--quiet", action="store_true", help="do not tell each fault")
    arguments = parser.parse_args()
    comfyui = os.environ.get("COMFYUI_URL", "")
    print(f"{arguments.tasks} tasks, seed {arguments.seed}, on {comfyui or 'the embedded engine'}", flush=True)
    report = run(
        tasks=arguments.tasks,
        seed=arguments.seed,
        comfyui_url=comfyui,
        say=(lambda _: None) if arguments.quiet else lambda text: print(text, flush=True),
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    print(in_words(report))
    return 0 if report.good else 1


def in_words(report: Report) -> str:
    counts = report.as_json()
    lines = [
        f"{name.replace('_', ' '):34} {value}"
        for name, value in counts.items()
        if name not in ("faults", "violations", "bugs", "lost_tasks", "good")
    ]
    faults = [f"  {kind:32} {times}" for kind, times in report.faults.items()]
    wrong = [f"violation: {text}" for text in report.violations] + [f"bug: {text}" for text in report.bugs]
    wrong += [f"lost: {task}" for task in report.lost_tasks]
    return "\n".join([*lines, f"faults{'':28} {sum(report.faults.values())}", *faults, *wrong])


if __name__ == "__main__":
    sys.exit(main())
