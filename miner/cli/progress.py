"""The progress of a download or a check: bars in a terminal, lines in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from miner.models.catalogue import FileStatus

log = structlog.get_logger()

LINE_EVERY = 10.0  # seconds between two lines of one file


class Bars:
    """A bar for each file, and one for all of them. A `Progress` and a context manager."""

    def __init__(self, console: Console, statuses: Sequence[FileStatus]) -> None:
        """`statuses`: the files to download; more than one get a bar for the sum too."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            expand=True,
        )
        self._mutex = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        for status in statuses:
            self._add(status.file.relative_path, done=status.present_bytes, total=status.file.size)
        self._all = self._progress.add_task("total", total=None) if len(statuses) > 1 else None
        self._sum()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, name: str, done: int, total: int | None) -> None:
        with self._mutex:
            if name not in self._tasks:
                self._add(name, done=0, total=None)
            self._progress.update(self._tasks[name], completed=done, total=total)
            self._sum()

    def message(self, name: str, text: str) -> None:
        self._progress.console.print(f"{name}: {text}", markup=False, highlight=False)  # above the bars

    def _add(self, name: str, *, done: int, total: int | None) -> None:
        self._tasks[name] = self._progress.add_task(name.rpartition("/")[2], total=total, completed=done)

    def _sum(self) -> None:
        if self._all is not None:
            files = [task for task in self._progress.tasks if task.id != self._all]
            total = sum(task.total or 0 for task in files)
            self._progress.update(self._all, completed=sum(task.completed for task in files), total=total)


class Lines:
    """A log line for each file now and then. A `Progress`."""

    def __init__(self, *, every: float = LINE_EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}  # name → time and bytes of its last line

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, name: str, done: int, total: int | None) -> None:
        now = self._clock()
        if name not in self._last:
            self._last[name] = (now, done)
            log.info("model_download", file=name, done=done, total=total)
            return
        when, before = self._last[name]
        if now - when >= self._every:
            self._last[name] = (now, done)
            percent = round(100 * done / total) if total else None
            speed = round(max(done - before, 0) / (now - when) / 1e6, 1)
            log.info("model_download", file=name, done=done, total=total, percent=percent, mb_s=speed)

    def message(self, name: str, text: str) -> None:
        log.info("model_download", file=name, now=text)
