"""`xalora-miner run` with a bug in it: in what is done with a task (`CONFIG task`), or outside (`CONFIG loop`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from miner.config import load_settings
from miner.config.bundled import WORKFLOWS
from miner.telemetry import log
from miner.worker.supervisor import Worker
from miner.workflows import Library, load_library


class WrongWithATask(Library):
    def choose(self, *_: object) -> NoReturn:
        raise ZeroDivisionError("a bug, put in on purpose")


class WrongBetweenTasks(Library):
    def ids_of(self, *_: object) -> NoReturn:
        raise ZeroDivisionError("a bug, put in on purpose")


def main(config: str, where: str) -> int:
    settings = load_settings(config_file=Path(config), flags={}).settings
    log.setup(level=settings.log.level, style=settings.log.format)
    library = load_library([WORKFLOWS], ids=settings.workflows.ids)
    broken = WrongWithATask if where == "task" else WrongBetweenTasks
    worker = Worker(settings, broken(workflows=library.workflows, ids=library.ids))
    worker.take_signals()
    return worker.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
