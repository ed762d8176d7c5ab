"""What the demo shows: a live table, then a summary."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

_NEXT = {"leased": "preparing", "prompted": "rendering", "rendered": "uploading"}  # recorded step → what runs now
SETTLE_TIMEOUT = 5.0  # seconds to wait for the worker's last log line of a task


@dataclass(slots=True, kw_only=True)
class Task:
    """One picture and its task."""

    picture: Path
    size: tuple[int, int]  # pixels
    task_id: str = ""
    result_size: tuple[int, int] | None = None
    reason: str = ""  # why it failed


@dataclass(slots=True)
class WorkerLog:
    """The worker's log, read line by line. `read` runs in its own thread."""

    steps: dict[str, str] = field(default_factory=dict)  # task → what runs now
    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # task → the log line of its end
    last_message: str = "nothing"
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self, lines: TextIO) -> None:
        """Until the worker closes its log."""
        with lines:
            for line in lines:
                with self._changed:
                    self._take(line)
                    self._changed.notify_all()

    def settle(self, tasks: Sequence[Task]) -> None:
        """Wait for the last log lines of `tasks`, which come a moment after their results."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(task.task_id in self.done or not task.task_id for task in tasks),
                timeout=SETTLE_TIMEOUT,
            )

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            self.last_message = line.strip()
            return
        kind, task_id = event.get("event", ""), event.get("task_id", "")
        if event.get("level") in ("warning", "error"):
            self.last_message = f"{kind} {event.get('reason', '')}".strip()
        if kind == "task_step":
            self.steps[task_id] = _NEXT[event["step"]]
        elif kind == "task_progress" and event["of"] > 1:
            self.steps[task_id] = f"rendering, {event['value']:.0f} of {event['of']:.0f}"
        elif kind in ("task_done", "task_failed", "task_refused"):
            self.steps[task_id] = "done" if kind == "task_done" else "failed"
            self.done[task_id] = event


def live_table(tasks: Sequence[Task], worker_log: WorkerLog) -> Table:
    """Every picture and its stage."""
    table = Table("picture", "pixels", "now", box=None, pad_edge=False)
    for task in tasks:
        now = worker_log.steps.get(task.task_id, "waiting for the miner" if task.task_id else "sending")
        color = {"done": "green", "failed": "red"}.get(now, "yellow")
        table.add_row(task.picture.name, _pixels(task.size), f"[{color}]{now}[/]")
    return table


def summary(tasks: Sequence[Task], worker_log: WorkerLog) -> Table:
    """A row for each task, with the seconds of each stage."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption="the last four are seconds")
    for heading in ("task", "picture", "workflow", "in", "out", "prep", "render", "send", "all"):
        table.add_column(heading, no_wrap=True)
    for task in tasks:
        line = worker_log.done.get(task.task_id, {})
        table.add_row(
            task.task_id[:6],
            task.picture.stem[:12],
            line.get("workflow", "-"),
            _pixels(task.size),
            _pixels(task.result_size),
            *(f"{line[key]:.2f}" if key in line else "-" for key in ("prepare_s", "render_s", "upload_s", "total_s")),
        )
    return table


def _pixels(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else "-"
