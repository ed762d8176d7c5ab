"""Cleans up after tasks: keeps a thumbnail for the history and deletes all files.

The ledger hands over tasks with an outcome or taken away. Files that cannot be deleted stay in the journal for the next
start. Runs in the deliver loop's thread, after the next prompt has started.
"""

from __future__ import annotations

import shutil
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from miner.comfy.host import ComfyHost
from miner.media.thumbnail import thumbnail
from miner.task.errors import MachineFault
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Answered, Places, TaskInHand

log = structlog.get_logger()

Due = tuple[str, Places, Path | None]
"""A task's id, its places, and its result if it needs a thumbnail."""


@dataclass(slots=True, kw_only=True)
class Cleanup:
    """One lane's. Call `add` from any thread, `run_next` from one."""

    ledger: Ledger
    host: ComfyHost
    journal: Journal
    thumbnails: bool  # keep one of each result
    finished: dict[str, Path] = field(default_factory=dict)  # task → its result file
    _due: deque[Due] = field(default_factory=deque)

    def add(self, task: TaskInHand) -> None:
        """Queue a finished task."""
        success = isinstance(task.stage, Answered) and task.stage.outcome.success
        file = self.finished.pop(task.task_id, None)
        self._due.append((task.task_id, task.places, file if success and self.thumbnails else None))

    def restore(self) -> None:
        """Queue the tasks of earlier runs. Raises MachineFault if the journal cannot be read."""
        self._due.extend((task_id, places, None) for task_id, places in self.journal.uncleaned(self.ledger.miner_id))

    @property
    def pending(self) -> bool:
        return bool(self._due)

    @property
    def backlog(self) -> int:
        """Tasks to clean up after."""
        return len(self._due)

    def run_next(self) -> None:
        """Clean up after one task, if any."""
        if not self._due:
            return
        task_id, places, file = self._due.popleft()
        try:
            self._clean_up(task_id, places, file)
        except Exception:
            log.exception("cleanup_failed", task_id=task_id, next="the next start tries again; please report this bug")

    def _clean_up(self, task_id: str, places: Places, file: Path | None) -> None:
        if file is not None:
            self._keep_thumbnail(task_id, file)
        gone = [self.host.discard(prompt_id) for prompt_id in places.prompts]
        for folder in places.folders:
            shutil.rmtree(folder, ignore_errors=True)
        if all(gone) and places != Places():
            self.ledger.cleaned(task_id)

    def _keep_thumbnail(self, task_id: str, file: Path) -> None:
        if (made := thumbnail(file)) is None:
            return
        try:
            self.journal.record_thumbnail(
                self.ledger.miner_id, task_id, width=made.width, height=made.height, thumbnail=made.webp
            )
        except MachineFault as fault:
            log.error("thumbnail_not_kept", task_id=task_id, reason=fault.message, next="continuing without it")
