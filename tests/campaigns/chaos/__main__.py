"""`make chaos`: run a campaign and print what it showed.

Exits with 1 where a task was lost, answered twice or blamed on the wrong one, where a trace of one was left behind,
or where the miner is not ready in the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.campaigns.chaos.campaign import TIME_LIMIT, Report, run
from tests.support.comfyui import Installed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=8, help="tasks between two faults, on average")
    parser.add_argument("--minutes", type=float, default=TIME_LIMIT / 60, help="the most time for feeding tasks")
    parser.add_argument("--managed", action="store_true", help="the miner starts ComfyUI")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the campaign's files here")
    parser.add_argument("--json", type=Path, help="also write the report here")
    parser.add_argument("--quiet", action="store_true", help="do not tell each fault")
    Installed.add_to(parser)
    arguments = parser.parse_args()
    installed = Installed.asked_for(arguments)
    on = f"ComfyUI {installed.home}" if installed else "the embedded engine"
    print(f"{arguments.tasks} tasks, seed {arguments.seed}, on {on}{', managed' * arguments.managed}", flush=True)
    report = run(
        tasks=arguments.tasks,
        seed=arguments.seed,
        every=arguments.every,
        installed=installed,
        managed=arguments.managed,
        time_limit=arguments.minutes * 60,
        keep=arguments.keep,
        say=(lambda _: None) if arguments.quiet else lambda text: print(text, flush=True),
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    print(in_words(report))
    if report.tasks < arguments.tasks:
        print(f"only {report.tasks} of {arguments.tasks} tasks were fed in {arguments.minutes:.0f} minutes")
    return 0 if report.good else 1


def in_words(report: Report) -> str:
    lines: list[str] = []
    for name, value in report.as_json().items():
        title = name.replace("_", " ")
        match value:
            case dict():
                lines += [f"{title}", *(f"  {key:32} {one}" for key, one in value.items())]
            case list():
                lines += [f"{title:34} {len(value)}", *(f"  {one}" for one in value)]
            case _:
                lines.append(f"{title:34} {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
