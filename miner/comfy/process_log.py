"""The log of a ComfyUI that the miner manages: kept within a limit, and without strings of tasks.

ComfyUI and its nodes quote prompts in their errors. The file is theirs to append to, so what must go is overwritten in
its place, byte by byte.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from miner.telemetry import clock
from miner.telemetry.redaction import OF_TASKS, Hidden, quoted

LIMIT = 10_000_000  # bytes; as many again are kept in `log.1`
TAIL = 1_000_000  # bytes that are searched where it is not known when a task came
MARKS = 64  # earlier sizes to remember


@dataclass(slots=True)
class ProcessLog:
    """One file, and its predecessor `log.1`. Thread-safe. A file that cannot be read or written is left as it is."""

    path: Path
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MARKS))  # time, bytes
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @property
    def older(self) -> Path:
        return self.path.with_name("log.1")

    def tidy(self) -> bool:
        """Start anew above the limit; returns whether it did. ComfyUI keeps appending: truncated, not renamed."""
        with self._mutex, suppress(FileNotFoundError):
            if self.path.stat().st_size <= LIMIT:
                return False
            with suppress(OSError):  # a full disk: truncating helps
                shutil.copyfile(self.path, self.older)
            self._empty()
            return True
        return False

    def scrub(self, strings: Collection[str], *, since: float) -> None:
        """Overwrite a task's strings; `since`: when the task came, by `telemetry.clock`. Blocks for the disk."""
        forms = [form.encode(errors="replace").decode("latin-1") for string in strings for form in quoted(string)]
        hidden = Hidden(forms, length=OF_TASKS)
        with self._mutex, suppress(OSError):
            size = self.path.stat().st_size
            known = [at for time, at in self._marks if time <= since]
            start = known[-1] if known else max(size - TAIL, 0)
            _overwrite(self.path, hidden, start)
            if not known and self.older.exists():
                _overwrite(self.older, hidden, max(self.older.stat().st_size - TAIL, 0))
            self._marks.append((clock.now(), size))

    def empty(self) -> None:
        """Drop everything: it may quote tasks whose strings nobody knows any more."""
        with self._mutex, suppress(OSError):
            self.older.unlink(missing_ok=True)
            self._empty()

    def _empty(self) -> None:
        os.truncate(self.path, 0)
        self._marks.clear()


def _overwrite(path: Path, hidden: Hidden, start: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        text = file.read().decode("latin-1")  # a character a byte
        for begin, end in hidden.spans(text):
            file.seek(start + begin)
            file.write(b"*" * (end - begin))
