"""The journal: every task's stage until the sequencer acknowledges its answer; then the history.

SQLite with a write-ahead log and `synchronous=FULL`: a record survives a power cut once its method returns, and is made
*before* its step is taken. No network, no decisions. Upload targets and the consumer's parameters are secrets: the file
has mode 0600, and they are erased once the task is answered. The answer may quote the consumer: once it
is acknowledged, only its version without quotes stays. `forget` empties the write-ahead log, which holds all of this.

Times in it are wall time, as it stands when a record is written: the next run has another `telemetry.clock`. If the
machine's clock steps after that and before the next start, the task's deadline is off by the step after that start.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter

from miner.task.errors import MachineFault
from miner.task.journal_file import PAD, empty_log, lock, open_database, prune_damaged, unusable
from miner.task.stages import (
    Answered,
    Closed,
    Facts,
    Hold,
    Lease,
    Leased,
    Outcome,
    Places,
    Prepared,
    Prompted,
    Rendered,
    Stage,
    StageName,
    TaskInHand,
    Uploaded,
)
from miner.telemetry import clock

log = structlog.get_logger()

DAY = 86400.0
MAX_CLOSED = 100_000  # closed tasks in the history
USUAL_OF = 20  # tasks per average
_NOWHERE = Places()

T = TypeVar("T")

_LEASE = TypeAdapter(Lease)
_OUTCOME = TypeAdapter(Outcome)
_FACTS = TypeAdapter(Facts)
_PLACES = TypeAdapter(Places)
_RECORDS: dict[StageName, TypeAdapter[Any]] = {
    "leased": TypeAdapter(Leased),
    "prepared": TypeAdapter(Prepared),
    "prompted": TypeAdapter(Prompted),
    "rendered": TypeAdapter(Rendered),
    "uploaded": TypeAdapter(Uploaded),
}

RECORD_LOST = "the miner lost this task's data in a restart; please create it again"


_COLUMNS = (
    "task_id, miner_id, step, task_type, workflow, prompt_id, outcome, facts, verdict, attempts, crashes, places,"
    " leased_at, ended_at, pad, lease, record, answer"
)
_ROW = f"INTO tasks ({_COLUMNS}) VALUES ({', '.join('?' * 18)})"
_REPLACE = f"INSERT OR REPLACE {_ROW}"
_UPSERT = f"""
    INSERT {_ROW} ON CONFLICT DO UPDATE SET
        step = excluded.step,
        task_type = excluded.task_type,
        workflow = excluded.workflow,
        prompt_id = CASE excluded.prompt_id WHEN '' THEN prompt_id ELSE excluded.prompt_id END,
        pad = excluded.pad,
        lease = CASE excluded.step WHEN 'closed' THEN NULL ELSE coalesce(excluded.lease, lease) END,
        record = excluded.record,
        answer = excluded.answer,
        outcome = coalesce(excluded.outcome, outcome),
        facts = coalesce(excluded.facts, facts),
        verdict = excluded.verdict,
        attempts = excluded.attempts,
        places = excluded.places,
        ended_at = excluded.ended_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A task in the journal."""

    outcome: Outcome | None
    verdict: str  # "" until closed


class Journal:
    """One file, one process. Thread-safe. Methods block for a disk flush (under a millisecond on an SSD), and raise
    MachineFault when the disk fails."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create `folder`/journal.db; move a damaged one aside. Raises ConfigError if another miner uses the
        folder, a newer version wrote the file, or the folder cannot be written."""
        self._clock = clock
        self._folder = folder
        self._mutex = threading.Lock()
        self.news = 0  # changes with the history
        self._erased = 1  # counts records that erase something, and an earlier run's as one
        self._forgotten = 0  # what it was at the last `forget`
        self._lock_file = lock(folder)
        try:
            self._db = open_database(folder / "journal.db")
            self._begin_run()
            with contextlib.suppress(MachineFault):
                self.forget()
        except BaseException as error:
            os.close(self._lock_file)
            if isinstance(error, OSError | sqlite3.Error):
                raise unusable(folder, error) from error
            raise

    def close(self) -> None:
        """Close after a clean shutdown: counts as no task's crash."""
        with contextlib.suppress(MachineFault):
            self._write("DELETE FROM running", ())
        with self._mutex:
            self._db.close()
            os.close(self._lock_file)

    def _begin_run(self) -> None:
        """If the last run ended without `close`, count a crash for each task in hand."""
        if self._db.execute("SELECT * FROM running").fetchall():
            self._db.execute("UPDATE tasks SET crashes = crashes + 1 WHERE step NOT IN ('answered', 'closed')")
            self._db.execute("DELETE FROM running")
        self._db.execute("INSERT INTO running VALUES (?)", (self._clock(),))

    # ---- writing --------------------------------------------------------------------------------

    def record(self, miner_id: str, task: TaskInHand, *, lease: bool = False) -> None:
        """Write the task's state; `lease`: and its lease, which is new or has changed.

        `Answered` erases the secrets, `Closed` the answer; the outcome stays for the history.
        """
        task = _moved(task, clock.wall)
        stage = task.stage
        kept = task.lease.bare() if isinstance(stage, Answered) and not task.unknown else task.lease if lease else None
        answered = stage if isinstance(stage, Answered) else None
        values: dict[str, Any] = {
            "task_id": task.task_id,
            "miner_id": miner_id,
            "step": stage.name,
            "task_type": task.lease.task_type if task.workflow else "",  # else it may be anything
            "workflow": task.workflow,
            "prompt_id": task.places.prompts[-1] if task.attempts and task.places.prompts else "",
            "outcome": _dump(answered.shown) if answered else None,
            "facts": _dump(answered.facts) if answered and answered.facts else None,
            "verdict": stage.verdict if isinstance(stage, Closed) else "",
            "attempts": task.attempts,
            "crashes": task.crashes,
            "places": _dump(task.places) if task.places != _NOWHERE else "",
            "leased_at": task.lease.leased_at,
            "ended_at": self._clock() if isinstance(stage, Closed) else None,
            "pad": None if isinstance(stage, Closed) else PAD,
            "lease": _dump(kept) if kept else None,
            "record": _dump(stage) if stage.name in _RECORDS else None,
            "answer": _dump(answered.outcome) if answered and answered.told is not None else None,
        }
        self._write(_REPLACE if lease and isinstance(stage, Leased) else _UPSERT, tuple(values.values()))
        if isinstance(stage, (Answered, Closed)):
            self._erased += 1
        if isinstance(stage, Closed):
            self.news += 1

    def cleaned(self, miner_id: str, left: Mapping[str, Places]) -> None:
        """The tasks' files are deleted but for those that are `left`; all in one commit."""
        rows = [(_dump(places) if places != _NOWHERE else "", task_id, miner_id) for task_id, places in left.items()]
        with self._mutex, _translated():
            self._db.execute("BEGIN")
            with self._db:  # rolls back, too, if the commit fails
                self._db.executemany("UPDATE tasks SET places = ? WHERE task_id = ? AND miner_id = ?", rows)

    def record_thumbnail(self, miner_id: str, task_id: str, *, width: int, height: int, thumbnail: bytes) -> None:
        """Store the result's size in pixels and its WebP thumbnail for the history."""
        self._write(
            "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", (task_id, miner_id, width, height, thumbnail)
        )
        self.news += 1

    def forget(self) -> bool:
        """Empty the write-ahead log, where erased secrets last; returns False if a reader prevents it: try again.

        Blocks for two disk flushes, during which stages can be recorded.
        """
        erased = self._erased
        with _translated():
            empty = empty_log(self._folder / "journal.db")
        if empty:
            self._forgotten = erased
        return empty

    @property
    def must_forget(self) -> bool:
        """Whether something was erased since the last `forget` that succeeded."""
        return self._forgotten < self._erased

    # ---- reading --------------------------------------------------------------------------------

    def known(self, miner_id: str, task_id: str) -> Known | None:
        """The task's answer; None for a task that was never leased here."""
        rows = self._read("SELECT outcome, verdict FROM tasks WHERE task_id = ? AND miner_id = ?", (task_id, miner_id))
        if not rows:
            return None
        outcome = _or_none(_OUTCOME.validate_json, rows[0]["outcome"])
        return Known(outcome=outcome, verdict=rows[0]["verdict"])

    def unfinished(self, miner_id: str) -> list[TaskInHand]:
        """The tasks that are not closed, oldest first."""
        rows = self._read("SELECT * FROM tasks WHERE miner_id = ? AND step != 'closed' ORDER BY leased_at", (miner_id,))
        return [_moved(_task(row), clock.from_wall) for row in rows]

    def uncleaned(self, miner_id: str) -> list[tuple[str, Places]]:
        """Closed tasks with files left: (id, places)."""
        rows = self._read(
            "SELECT task_id, places FROM tasks WHERE miner_id = ? AND step = 'closed' AND places != ''", (miner_id,)
        )
        return [(row["task_id"], _or_none(_PLACES.validate_json, row["places"]) or _NOWHERE) for row in rows]

    def usual_seconds(self, workflow: str) -> float | None:
        """ComfyUI's average for the workflow's last tasks; None before the first."""
        (row,) = self._read(
            "SELECT AVG(render) AS seconds FROM (SELECT json_extract(facts, '$.render') AS render FROM tasks WHERE"
            " step = 'closed' AND workflow = ? AND json_extract(outcome, '$.success') ORDER BY ended_at DESC LIMIT ?)",
            (workflow, USUAL_OF),
        )
        seconds: float | None = row["seconds"]
        return seconds

    def prune(self, *, keep_days: float) -> int:
        """Delete closed tasks older than `keep_days`, and all but the latest MAX_CLOSED; returns the number. Deletes
        damaged journals of that age, too."""
        try:
            prune_damaged(self._folder, before=self._clock() - keep_days * DAY)
        except OSError as error:
            raise MachineFault(
                f"a damaged journal cannot be deleted: {error.strerror}",
                hint=f"delete it yourself, from {self._folder}",
            ) from error
        return self._write(
            "DELETE FROM tasks WHERE step = 'closed' AND ended_at < max(?, coalesce("
            "(SELECT ended_at FROM tasks WHERE step = 'closed' ORDER BY ended_at DESC LIMIT 1 OFFSET ?), 0))",
            (self._clock() - keep_days * DAY, MAX_CLOSED),
        )

    # ---- SQLite ---------------------------------------------------------------------------------

    def _write(self, sql: str, values: tuple[Any, ...]) -> int:
        with self._mutex, _translated():
            return self._db.execute(sql, values).rowcount

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._mutex, _translated():
            return self._db.execute(sql, values).fetchall()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        raise MachineFault(
            f"the journal cannot be written: {error}", hint="free disk space, or check the state folder"
        ) from error


def _task(row: sqlite3.Row) -> TaskInHand:
    """A row as a TaskInHand. An unreadable record (disk fault, another version) becomes a task to answer as lost."""
    task_id = row["task_id"]
    told = _or_none(_OUTCOME.validate_json, row["outcome"]) if row["step"] == "answered" else None
    outcome = _or_none(_OUTCOME.validate_json, row["answer"]) or told
    lease = _or_none(lambda text: _LEASE.validate_python(json.loads(text)), row["lease"])
    stage: Stage | None = None
    if outcome is not None:
        facts = _or_none(_FACTS.validate_json, row["facts"])
        stage = Answered(outcome=outcome, facts=facts, told=told.msg if told and row["answer"] else None)
    elif lease is not None and row["step"] in _RECORDS:
        adapter = _RECORDS[row["step"]]
        stage = _or_none(lambda text: adapter.validate_python(json.loads(text)), row["record"])
    if stage is None:
        log.error("record_unreadable", task_id=task_id, step=row["step"], next="answering that it was lost")
        lease = Lease.unknown(task_id, at=row["leased_at"], fault=RECORD_LOST)
    return TaskInHand(
        lease=lease or Lease.unknown(task_id, at=row["leased_at"]),
        stage=stage or Leased(),
        hold=Hold(task_id=task_id),
        attempts=row["attempts"],
        crashes=row["crashes"],
        places=_or_none(_PLACES.validate_json, row["places"]) or _NOWHERE,
        workflow=row["workflow"],
        unknown=lease is None and outcome is not None,
    )


def _moved(task: TaskInHand, to: Callable[[float], float]) -> TaskInHand:
    """The task with its times on another clock."""
    stage, lease = task.stage, replace(task.lease, leased_at=to(task.lease.leased_at))
    if isinstance(stage, (Prepared, Prompted, Rendered, Uploaded)):
        stage = replace(stage, job=replace(stage.job, deadline=to(stage.job.deadline)))
    return replace(task, lease=lease, stage=stage)


def _or_none(read: Callable[[str], T], text: str | None) -> T | None:
    """None if missing or unreadable: JSONDecodeError and pydantic's ValidationError are ValueErrors."""
    try:
        return read(text) if text else None
    except ValueError:
        return None


def _dump(record: Any) -> str:
    return json.dumps(record, default=_plain)


def _plain(record: Any) -> dict[str, Any]:
    """A dataclass as JSON: `asdict` would copy all that is in it, for a third of what a record costs."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
