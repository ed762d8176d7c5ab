"""What the journal remembers, for people: the last tasks, their sums and averages, their small pictures.

Promises: it reads by a connection of its own, so that a look at a long history never holds up a lane's step; nothing of
a task's parameters is in what it gives. Never: writes.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from miner.task.errors import MachineFault

Outcome = Literal["done", "refused", "failed", "lost"]

_IS: dict[Outcome, str] = {
    "done": "json_extract(outcome, '$.success')",
    "refused": "NOT json_extract(outcome, '$.success') AND verdict != 'taken away' AND prompt_id = ''",
    "failed": "NOT json_extract(outcome, '$.success') AND verdict != 'taken away' AND prompt_id != ''",
    "lost": "verdict = 'taken away'",
}
"""How the journal's columns tell them."""

_ENDED = "step = 'closed' AND ended_at IS NOT NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A task that ended. Seconds of a stage are None where it did not get there."""

    task_id: str
    miner_id: str
    task_type: str
    workflow: str
    outcome: Outcome
    reason: str
    ended_at: float  # Unix seconds
    seconds: dict[str, float | None]
    size: int | None  # bytes of the result
    pixels: tuple[int, int] | None
    pictured: bool  # whether there is a thumbnail


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What came of the tasks that ended in a span of time."""

    done: int
    refused: int
    failed: int
    lost: int
    render_seconds: float


class History:
    """Thread-safe. Its methods block for the disk, and raise MachineFault where the journal cannot be read."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the state folder; the journal in it has been opened, so its tables are there."""
        self._path = folder / "journal.db"
        self._mutex = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._mutex:
            if self._db is not None:
                self._db.close()
            self._db = None

    def last(
        self,
        *,
        limit: int,
        outcome: Outcome | None = None,
        workflow: str | None = None,
        before: float | None = None,
    ) -> list[Past]:
        """At most `limit` tasks that ended, the latest first; `before` (Unix seconds) goes on where a page ended."""
        where, values = [_ENDED], []
        if outcome is not None:
            where.append(_IS[outcome])
        for column, value in (("workflow = ?", workflow), ("ended_at < ?", before)):
            if value is not None:
                where.append(column)
                values.append(value)
        rows = self._read(
            "SELECT tasks.*, width, height FROM tasks LEFT JOIN pictures USING (task_id, miner_id)"  # noqa: S608
            f" WHERE {' AND '.join(where)} ORDER BY ended_at DESC LIMIT ?",
            (*values, limit),
        )
        return [_past(row) for row in rows]

    def sums(self, *, since: float) -> Sums:
        """Of the tasks that ended at `since` (Unix seconds) or later."""
        counts = ", ".join(f"TOTAL({condition}) AS {name}" for name, condition in _IS.items())
        (row,) = self._read(
            f"SELECT {counts}, TOTAL(json_extract(facts, '$.render')) AS render FROM tasks"  # noqa: S608
            f" WHERE {_ENDED} AND ended_at >= ?",
            (since,),
        )
        return Sums(**{name: int(row[name]) for name in _IS}, render_seconds=row["render"])

    def thumbnail(self, miner_id: str, task_id: str) -> bytes | None:
        """WebP."""
        rows = self._read("SELECT thumbnail FROM pictures WHERE task_id = ? AND miner_id = ?", (task_id, miner_id))
        return bytes(rows[0]["thumbnail"]) if rows else None

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._mutex, _translated():
            if self._db is None:
                self._db = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
                self._db.row_factory = sqlite3.Row
                self._db.execute("PRAGMA cache_size = -512")  # KiB, of 2 MB
            return self._db.execute(sql, values).fetchall()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise MachineFault(
            f"the journal cannot be read: {error}", hint="check the state folder and its disk"
        ) from error


def _past(row: sqlite3.Row) -> Past:
    answer = json.loads(row["outcome"]) if row["outcome"] else {}
    facts = json.loads(row["facts"]) if row["facts"] else {}
    return Past(
        task_id=row["task_id"],
        miner_id=row["miner_id"],
        task_type=row["task_type"],
        workflow=row["workflow"],
        outcome=_outcome(row, answer),
        reason=_reason(row, answer),
        ended_at=row["ended_at"],
        seconds={stage: facts.get(stage) for stage in ("prepare", "queue", "render", "deliver", "total")},
        size=facts.get("size"),
        pixels=(row["width"], row["height"]) if row["width"] is not None else None,
        pictured=row["width"] is not None,
    )


def _outcome(row: sqlite3.Row, answer: dict[str, Any]) -> Outcome:
    if row["verdict"] == "taken away":
        return "lost"
    if answer.get("success"):
        return "done"
    return "failed" if row["prompt_id"] else "refused"


def _reason(row: sqlite3.Row, answer: dict[str, Any]) -> str:
    """In words: what the consumer was told, and what the sequencer said to that."""
    if row["verdict"] == "taken away":
        return "the sequencer took it away: it was canceled, or its time was over"
    verdict = {
        "refused": "the sequencer refused the answer",
        "gone": "the sequencer does not know the task any more",
    }.get(row["verdict"], "")
    return "; ".join(part for part in (str(answer.get("msg", "")), verdict) if part)
