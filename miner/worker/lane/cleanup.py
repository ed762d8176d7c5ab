"""After a task: its thumbnail for the history, and then everything of it goes, wherever it lies.

The ledger hands over each task that has its outcome, or that was taken away. What cannot be deleted now stays in the
journal, and the next start tries again. It works in the deliver loop's thread, once the next prompt had its turn.
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
"""A task's id, where something of it lies, and its finished file if it is to be pictured."""


@dataclass(slots=True, kw_only=True)
class Cleanup:
    """One lane's. `add` may be called from any thread, `run_next` from one."""

    ledger: Ledger
    host: ComfyHost
    journal: Journal
    thumbnails: bool  # whether to keep one of each finished picture, for the history
    finished: dict[str, Path] = field(default_factory=dict)  # task → its finished file, while that is there
    _due: deque[Due] = field(default_factory=deque)

    def add(self, task: TaskInHand) -> None:
        """Nothing is left to do for the task."""
        success = isinstance(task.stage, Answered) and task.stage.outcome.success
        file = self.finished.pop(task.task_id, None)
        self._due.append((task.task_id, task.places, file if success and self.thumbnails else None))

    def restore(self) -> None:
        """What an earlier run of the program left. Raises MachineFault where the journal cannot be read."""
        self._due.extend((task_id, places, None) for task_id, places in self.journal.uncleaned(self.ledger.miner_id))

    @property
    def pending(self) -> bool:
        return bool(self._due)

    def run_next(self) -> None:
        """Clean up after one task; nothing where there is none."""
        if not self._due:
            return
        task_id, places, file = self._due.popleft()
        if file is not None:
            self._picture(task_id, file)
        gone = [self.host.discard(prompt_id) for prompt_id in places.prompts]
        for folder in places.folders:
            shutil.rmtree(folder, ignore_errors=True)
        if all(gone) and places != Places():
            self.ledger.cleaned(task_id)

    def _picture(self, task_id: str, file: Path) -> None:
        if (made := thumbnail(file)) is None:
            return
        try:
            self.journal.record_thumbnail(
                self.ledger.miner_id, task_id, width=made.width, height=made.height, thumbnail=made.webp
            )
        except MachineFault as fault:
            log.error("thumbnail_not_kept", task_id=task_id, reason=fault.message, next="the history goes without it")
