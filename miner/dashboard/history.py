"""The journal's history: finished tasks, totals, thumbnails.

Reads over its own connection, so that long queries never delay a lane. Returns no task parameters. Never writes.
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

_CONDITIONS: dict[Outcome, str] = {
    "done": "json_extract(outcome, '$.success')",
    "refused": "NOT json_extract(outcome, '$.success') AND verdict != 'taken away' AND prompt_id = ''",
    "failed": "NOT json_extract(outcome, '$.success') AND verdict != 'taken away' AND prompt_id != ''",
    "lost": "verdict = 'taken away'",
}
"""SQL conditions."""

_ENDED = "step = 'closed' AND ended_at IS NOT NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTask:
    """A finished task. `seconds` are by stage; None: not reached."""

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
    pictured: bool  # has a thumbnail


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts of the tasks that ended in a period."""

    done: int
    refused: int
    failed: int
    lost: int
    render_seconds: float


class History:
    """Thread-safe. Methods block for the disk, and raise MachineFault when the journal cannot be read."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the state folder, with a journal opened before."""
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
    ) -> list[FinishedTask]:
        """At most `limit` finished tasks, latest first; `before` (Unix seconds) continues after a page."""
        where, values = [_ENDED], []
        if outcome is not None:
            where.append(_CONDITIONS[outcome])
        for column, value in (("workflow = ?", workflow), ("ended_at < ?", before)):
            if value is not None:
                where.append(column)
                values.append(value)
        rows = self._read(
            "SELECT tasks.*, width, height FROM tasks LEFT JOIN pictures USING (task_id, miner_id)"  # noqa: S608
            f" WHERE {' AND '.join(where)} ORDER BY ended_at DESC LIMIT ?",
            (*values, limit),
        )
        return [_finished(row) for row in rows]

    def totals(self, *, since: float) -> Totals:
        """Totals since `since` (Unix seconds)."""
        counts = ", ".join(f"TOTAL({condition}) AS {name}" for name, condition in _CONDITIONS.items())
        (row,) = self._read(
            f"SELECT {counts}, TOTAL(json_extract(facts, '$.render')) AS render FROM tasks"  # noqa: S608
            f" WHERE {_ENDED} AND ended_at >= ?",
            (since,),
        )
        return Totals(**{name: int(row[name]) for name in _CONDITIONS}, render_seconds=row["render"])

    def thumbnail(self, miner_id: str, task_id: str) -> bytes | None:
        """WebP."""
        rows = self._read("SELECT thumbnail FROM pictures WHERE task_id = ? AND miner_id = ?", (task_id, miner_id))
        return bytes(rows[0]["thumbnail"]) if rows else None

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._mutex, _translated():
            if self._db is None:
                self._db = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
                self._db.row_factory = sqlite3.Row
                self._db.execute("PRAGMA cache_size = -512")  # KiB; the default is 2 MB
            return self._db.execute(sql, values).fetchall()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise MachineFault(
            f"the journal cannot be read: {error}", hint="check the state folder and its disk"
        ) from error


def _finished(row: sqlite3.Row) -> FinishedTask:
    answer = json.loads(row["outcome"]) if row["outcome"] else {}
    facts = json.loads(row["facts"]) if row["facts"] else {}
    return FinishedTask(
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
    """The answer's message and the sequencer's verdict, in words."""
    if row["verdict"] == "taken away":
        return "canceled or expired, according to the sequencer"
    verdict = {
        "refused": "the sequencer rejected the answer",
        "gone": "the sequencer no longer knows the task",
    }.get(row["verdict"], "")
    return "; ".join(part for part in (str(answer.get("msg", "")), verdict) if part)
