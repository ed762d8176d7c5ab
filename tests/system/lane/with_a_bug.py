"""`xalora-miner run` with a bug in it: `CONFIG WHERE TIMES`, which raises the first TIMES times.

`task`: in what is done with a task. `poll`, `refresh`, `heartbeat`, `render`, `deliver`: outside of a task. `answer`:
when one is sent. `close`: when one was accepted. `watch`: in the main thread.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miner.config import load_settings
from miner.config.bundled import WORKFLOWS
from miner.models.folder_watch import FolderWatch
from miner.sequencer import Sequencer
from miner.task.ledger import Ledger
from miner.telemetry import log
from miner.worker.lane.answers import Answers
from miner.worker.lane.cleanup import Cleanup
from miner.worker.lane.render import Render
from miner.worker.lanes import Lanes
from miner.worker.supervisor import Worker
from miner.workflows import Library, load_library

PLACES: dict[str, tuple[type, str]] = {
    "task": (Library, "choose"),
    "poll": (Library, "ids_of"),
    "refresh": (FolderWatch, "changed"),
    "heartbeat": (Ledger, "write_again"),
    "render": (Render, "_next"),
    "deliver": (Cleanup, "run_next"),
    "answer": (Sequencer, "submit"),
    "close": (Answers, "_closed"),
    "watch": (Lanes, "says"),
}


def broken(works: Callable[..., Any], times: int) -> Callable[..., Any]:
    calls = itertools.count()

    def call(*args: Any, **named: Any) -> Any:
        if next(calls) < times:
            raise ZeroDivisionError("a bug, put in on purpose")
        return works(*args, **named)

    return call


def main(config: str, where: str, times: str) -> int:
    place, name = PLACES[where]
    setattr(place, name, broken(getattr(place, name), int(times)))
    settings = load_settings(config_file=Path(config), flags={}).settings
    log.setup(level=settings.log.level, style=settings.log.format)
    worker = Worker(settings, load_library([WORKFLOWS], ids=settings.workflows.ids))
    worker.take_signals()
    return worker.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
