"""`xalora-miner run` with a bug in it: no task can be chosen a workflow for, and the error is none of ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from miner.config import load_settings
from miner.config.bundled import WORKFLOWS
from miner.telemetry import log
from miner.worker.supervisor import Worker
from miner.workflows import Library, load_library


class Broken(Library):
    def choose(self, *_: object) -> NoReturn:
        raise ZeroDivisionError("a bug, put in on purpose")


def main(config: str) -> int:
    settings = load_settings(config_file=Path(config), flags={}).settings
    log.setup(level=settings.log.level, style=settings.log.format)
    library = load_library([WORKFLOWS], ids=settings.workflows.ids)
    worker = Worker(settings, Broken(workflows=library.workflows, ids=library.ids))
    worker.take_signals()
    return worker.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
