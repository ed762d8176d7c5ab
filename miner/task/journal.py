"""The journal: every task and its stage, until the sequencer has acknowledged its outcome; then its history.

SQLite with a write-ahead log and `synchronous=FULL`: when a method returns, what it wrote survives a power cut. It is
written *before* the step that it names is taken. It knows no network and decides nothing. Upload targets and the
consumer's parameters are secrets: they are in a file of mode 0600, and are erased once the task is acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter

from miner.task.errors import ConfigError, MachineFault
from miner.task.journal_file import lock, open_database
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

log = structlog.get_logger()

DAY = 86400.0
MOST_CLOSED = 100_000  # closed tasks that are kept at most
USUAL_OF = 20  # the last tasks of a workflow that an average is made of
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

RECORD_LOST = "the miner lost what it knew of this task in a restart; please create it again"


_COLUMNS = (
    "task_id, miner_id, step, task_type, workflow, prompt_id, lease, record, outcome, facts, verdict, attempts,"
    " crashes, places, leased_at, ended_at"
)
_ROW = f"INTO tasks ({_COLUMNS}) VALUES ({', '.join('?' * 16)})"
_AFRESH = f"INSERT OR REPLACE {_ROW}"
_ON = f"""
    INSERT {_ROW} ON CONFLICT DO UPDATE SET
        step = excluded.step,
        workflow = excluded.workflow,
        prompt_id = excluded.prompt_id,
        lease = CASE excluded.step WHEN 'closed' THEN NULL ELSE coalesce(excluded.lease, lease) END,
        record = CASE excluded.step WHEN 'closed' THEN NULL ELSE coalesce(excluded.record, record) END,
        outcome = coalesce(excluded.outcome, outcome),
        facts = coalesce(excluded.facts, facts),
        verdict = excluded.verdict,
        attempts = excluded.attempts,
        places = excluded.places,
        ended_at = excluded.ended_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A task that was answered before."""

    outcome: Outcome | None
    verdict: str  # "" while it is not closed


class Journal:
    """One file, one process. Its methods block for a disk flush (a fraction of a millisecond on an SSD), and may be
    called from any thread. Raises MachineFault when the disk does not take a record."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create `folder`/journal.db. A damaged one is moved aside; raises ConfigError when another miner has
        the folder, or when a newer program wrote the file."""
        self._clock = clock
        self._mutex = threading.Lock()
        self.news = 0  # counts what the history shows
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            hint = "give another folder with XALORA_STATE_DIR"
            raise ConfigError(f"[state] dir {folder} cannot be used: {error.strerror}", hint=hint) from error
        with contextlib.suppress(PermissionError):  # somebody else's folder, which the operator gave us
            folder.chmod(0o700)
        self._lock_file = lock(folder)
        try:
            self._db = open_database(folder / "journal.db")
            self._begin_run()
        except BaseException:
            os.close(self._lock_file)
            raise

    def close(self) -> None:
        """An orderly end: no task is to blame for it."""
        with contextlib.suppress(MachineFault):
            self._write("DELETE FROM running", ())
        with self._mutex:
            self._db.close()
            os.close(self._lock_file)

    def _begin_run(self) -> None:
        """What was in hand when the last run ended without `close` may have been what ended it."""
        with contextlib.suppress(MachineFault):
            if self._read("SELECT * FROM running", ()):
                self._write("UPDATE tasks SET crashes = crashes + 1 WHERE step NOT IN ('answered', 'closed')", ())
                self._write("DELETE FROM running", ())
            self._write("INSERT INTO running VALUES (?)", (self._clock(),))

    # ---- writing --------------------------------------------------------------------------------

    def record(self, miner_id: str, task: TaskInHand, *, lease: bool = False) -> None:
        """The task as it stands now; `lease`: it is new, or has another lease than before.

        At `Closed` what was secret goes, and the outcome stays for the history.
        """
        stage = task.stage
        values: dict[str, Any] = {
            "task_id": task.task_id,
            "miner_id": miner_id,
            "step": stage.name,
            "task_type": task.lease.task_type,
            "workflow": task.workflow,
            "prompt_id": task.places.prompts[-1] if task.attempts and task.places.prompts else "",
            "lease": _dump(task.lease) if lease else None,
            "record": _dump(stage) if stage.name in _RECORDS else None,
            "outcome": _dump(stage.outcome) if isinstance(stage, Answered) else None,
            "facts": _dump(stage.facts) if isinstance(stage, Answered) and stage.facts else None,
            "verdict": stage.verdict if isinstance(stage, Closed) else "",
            "attempts": task.attempts,
            "crashes": task.crashes,
            "places": _dump(task.places) if task.places != _NOWHERE else "",
            "leased_at": task.lease.leased_at,
            "ended_at": self._clock() if isinstance(stage, Closed) else None,
        }
        self._write(_AFRESH if lease and isinstance(stage, Leased) else _ON, tuple(values.values()))
        if isinstance(stage, Closed):
            self.news += 1

    def cleaned(self, miner_id: str, task_id: str) -> None:
        """Nothing of the task lies anywhere any more."""
        self._write("UPDATE tasks SET places = '' WHERE task_id = ? AND miner_id = ?", (task_id, miner_id))

    def pictured(self, miner_id: str, task_id: str, *, width: int, height: int, thumbnail: bytes) -> None:
        """The result's size in pixels, and a small WebP of it, for the history."""
        self._write(
            "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", (task_id, miner_id, width, height, thumbnail)
        )
        self.news += 1

    # ---- questions ------------------------------------------------------------------------------

    def known(self, miner_id: str, task_id: str) -> Known | None:
        """What was answered for a task; None for one that was never here."""
        rows = self._read("SELECT outcome, verdict FROM tasks WHERE task_id = ? AND miner_id = ?", (task_id, miner_id))
        if not rows:
            return None
        outcome = _or_none(_OUTCOME.validate_json, rows[0]["outcome"])
        return Known(outcome=outcome, verdict=rows[0]["verdict"])

    def unfinished(self, miner_id: str) -> list[TaskInHand]:
        """The tasks that something is still owed for, oldest first."""
        rows = self._read("SELECT * FROM tasks WHERE miner_id = ? AND step != 'closed' ORDER BY leased_at", (miner_id,))
        return [_task(row) for row in rows]

    def uncleaned(self, miner_id: str) -> list[tuple[str, Places]]:
        """Closed tasks of which something still lies somewhere, by their ids."""
        rows = self._read(
            "SELECT task_id, places FROM tasks WHERE miner_id = ? AND step = 'closed' AND places != ''", (miner_id,)
        )
        return [(row["task_id"], _or_none(_PLACES.validate_json, row["places"]) or _NOWHERE) for row in rows]

    def usual_seconds(self, workflow: str) -> float | None:
        """How long ComfyUI took for the last tasks of a workflow, on average; None before the first."""
        (row,) = self._read(
            "SELECT AVG(render) AS seconds FROM (SELECT json_extract(facts, '$.render') AS render FROM tasks WHERE"
            " step = 'closed' AND workflow = ? AND json_extract(outcome, '$.success') ORDER BY ended_at DESC LIMIT ?)",
            (workflow, USUAL_OF),
        )
        seconds: float | None = row["seconds"]
        return seconds

    def prune(self, *, keep_days: float) -> int:
        """Forget closed tasks older than `keep_days`, and all but the latest MOST_CLOSED; gives their number."""
        return self._write(
            "DELETE FROM tasks WHERE step = 'closed' AND ended_at < max(?, coalesce("
            "(SELECT ended_at FROM tasks WHERE step = 'closed' ORDER BY ended_at DESC LIMIT 1 OFFSET ?), 0))",
            (self._clock() - keep_days * DAY, MOST_CLOSED),
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
            f"the journal cannot be written: {error}", hint="free some disk space, or check the state folder"
        ) from error


def _task(row: sqlite3.Row) -> TaskInHand:
    """A row as it was in hand. One whose record cannot be read (a bad disk's, another version's) is answered so."""
    task_id = row["task_id"]
    outcome = _or_none(_OUTCOME.validate_json, row["outcome"]) if row["step"] == "answered" else None
    lease = _or_none(lambda text: _LEASE.validate_python(json.loads(text)), row["lease"])
    stage: Stage | None = None
    if outcome is not None:
        stage = Answered(outcome=outcome, facts=_or_none(_FACTS.validate_json, row["facts"]))
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
        stranger=lease is None and outcome is not None,
    )


def _or_none(read: Callable[[str], T], text: str | None) -> T | None:
    """None for what is not there or cannot be read: JSONDecodeError and pydantic's ValidationError are ValueErrors."""
    try:
        return read(text) if text else None
    except ValueError:
        return None


def _dump(record: Any) -> str:
    return json.dumps(asdict(record))
