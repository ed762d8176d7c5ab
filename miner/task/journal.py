"""The journal: every lease and how far it came, every outcome that the sequencer has not acknowledged.

SQLite with a write-ahead log and `synchronous=FULL`: when a method returns, what it wrote survives a power cut. It is
written *before* the step that it names is taken. It knows no network and decides nothing. Upload targets and the
consumer's parameters are secrets: they are in a file of mode 0600, and are erased once the task is acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter

from miner.task.errors import ConfigError, MachineFault
from miner.task.policy import Step
from miner.task.stages import Job, Lease, Outcome, Prompt, Rendered, Uploaded

log = structlog.get_logger()

DAY = 86400.0
MOST_CLOSED = 100_000  # closed tasks that are kept at most

_LEASE = TypeAdapter(Lease)
_JOB = TypeAdapter(Job)
_RENDERED = TypeAdapter(Rendered)
_UPLOADED = TypeAdapter(Uploaded)
_OUTCOME = TypeAdapter(Outcome)

_MIGRATIONS: list[str] = [
    """
    CREATE TABLE tasks (
        task_id    TEXT NOT NULL,
        miner_id   TEXT NOT NULL,
        step       TEXT NOT NULL,      -- policy.Step, then 'closed'
        workflow   TEXT NOT NULL DEFAULT '',
        prompt_id  TEXT NOT NULL DEFAULT '',
        record     TEXT,               -- JSON of the stage's dataclass; erased when closed
        outcome    TEXT,               -- JSON of the Outcome
        verdict    TEXT NOT NULL DEFAULT '',  -- how it was closed: sequencer.Ack, or 'taken away'
        leased_at  REAL NOT NULL,
        ended_at   REAL,
        PRIMARY KEY (task_id, miner_id)
    ) WITHOUT ROWID;
    CREATE INDEX tasks_open ON tasks (miner_id, leased_at) WHERE step != 'closed';
    CREATE INDEX tasks_ended ON tasks (ended_at);
    """,
    """
    ALTER TABLE tasks ADD COLUMN task_type TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN facts TEXT;  -- JSON of Facts
    CREATE TABLE pictures (
        task_id   TEXT NOT NULL,
        miner_id  TEXT NOT NULL,
        width     INTEGER NOT NULL,    -- pixels of the result
        height    INTEGER NOT NULL,
        thumbnail BLOB NOT NULL,       -- WebP
        PRIMARY KEY (task_id, miner_id)
    );
    CREATE TRIGGER task_forgotten AFTER DELETE ON tasks BEGIN
        DELETE FROM pictures WHERE task_id = old.task_id AND miner_id = old.miner_id;
    END;
    """,
    """
    ALTER TABLE tasks ADD COLUMN lease TEXT;  -- JSON of the Lease that counts, where it came after the record's
    """,
]
"""Each brings the schema one version up; a file's version is its `user_version`. Only ever append."""

SCHEMA = len(_MIGRATIONS)  # the newest `user_version` that this program knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the history tells about a task beside its outcome: seconds of each stage that is known, and bytes."""

    prepare: float | None = None  # from lease to ComfyUI's queue
    queue: float | None = None  # in that queue
    render: float | None = None
    deliver: float | None = None  # from ComfyUI's end to the answer: convert, upload
    total: float | None = None  # from lease to answer
    size: int | None = None  # of the result


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One task as the journal has it. Of the stages only the one that `step` names is there."""

    task_id: str
    step: Step | None  # None: closed
    workflow: str
    prompt_id: str
    lease: Lease | None = None
    job: Job | None = None
    rendered: Rendered | None = None
    uploaded: Uploaded | None = None
    outcome: Outcome | None = None
    verdict: str = ""
    ended_at: float | None = None


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
        self._lock_file = _lock(folder)
        try:
            self._db = _open(folder / "journal.db")
        except BaseException:
            os.close(self._lock_file)
            raise

    def close(self) -> None:
        with self._mutex:
            self._db.close()
            os.close(self._lock_file)

    # ---- steps, in their order ------------------------------------------------------------------

    def leased(self, miner_id: str, lease: Lease) -> None:
        self._write(
            "INSERT OR REPLACE INTO tasks (task_id, miner_id, step, task_type, record, leased_at)"
            " VALUES (?, ?, 'leased', ?, ?, ?)",
            (lease.task_id, miner_id, lease.task_type, _dump(lease), lease.leased_at),
        )

    def leased_again(self, miner_id: str, lease: Lease) -> None:
        """The lease that counts from now on, whatever lease the records of later steps hold."""
        self._write(
            "UPDATE tasks SET lease = ? WHERE task_id = ? AND miner_id = ?", (_dump(lease), lease.task_id, miner_id)
        )

    def prepared(self, miner_id: str, job: Job) -> None:
        self._step(miner_id, job.task_id, "prepared", job, workflow=job.workflow)

    def prompted(self, miner_id: str, prompt: Prompt) -> None:
        self._step(miner_id, prompt.job.task_id, "prompted", prompt.job, prompt_id=prompt.prompt_id)

    def rendered(self, miner_id: str, rendered: Rendered) -> None:
        self._step(miner_id, rendered.job.task_id, "rendered", rendered)

    def uploaded(self, miner_id: str, uploaded: Uploaded) -> None:
        self._step(miner_id, uploaded.job.task_id, "uploaded", uploaded)

    def answered(self, miner_id: str, outcome: Outcome, facts: Facts | None = None) -> None:
        """The outcome is known; from now on the task is the outbox's, whatever happens. Creates the task if need be."""
        self._write(
            "INSERT INTO tasks (task_id, miner_id, step, outcome, facts, leased_at) VALUES (?, ?, 'answered', ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET step = 'answered', outcome = excluded.outcome,"
            " facts = COALESCE(excluded.facts, facts), ended_at = NULL",
            (outcome.task_id, miner_id, _dump(outcome), _dump(facts) if facts else None, self._clock()),
        )

    def closed(self, miner_id: str, task_id: str, verdict: str) -> None:
        """Nothing is owed any more. What was secret goes; the outcome stays for the history."""
        self._write(
            "UPDATE tasks SET step = 'closed', record = NULL, lease = NULL, verdict = ?, ended_at = ?"
            " WHERE task_id = ? AND miner_id = ?",
            (verdict, self._clock(), task_id, miner_id),
        )
        self.news += 1

    def pictured(self, miner_id: str, task_id: str, *, width: int, height: int, thumbnail: bytes) -> None:
        """The result's size in pixels, and a small WebP of it, for the history."""
        self._write(
            "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", (task_id, miner_id, width, height, thumbnail)
        )
        self.news += 1

    # ---- questions ------------------------------------------------------------------------------

    def get(self, miner_id: str, task_id: str) -> Entry | None:
        rows = self._read("SELECT * FROM tasks WHERE task_id = ? AND miner_id = ?", (task_id, miner_id))
        return _entry(rows[0]) if rows else None

    def unfinished(self, miner_id: str) -> list[Entry]:
        """The tasks that something is still owed for, oldest first."""
        rows = self._read("SELECT * FROM tasks WHERE miner_id = ? AND step != 'closed' ORDER BY leased_at", (miner_id,))
        return [_entry(row) for row in rows]

    def prune(self, *, keep_days: float) -> int:
        """Forget closed tasks older than `keep_days`, and all but the latest MOST_CLOSED; gives their number."""
        return self._write(
            "DELETE FROM tasks WHERE step = 'closed' AND ended_at < max(?, coalesce("
            "(SELECT ended_at FROM tasks WHERE step = 'closed' ORDER BY ended_at DESC LIMIT 1 OFFSET ?), 0))",
            (self._clock() - keep_days * DAY, MOST_CLOSED),
        )

    # ---- SQLite ---------------------------------------------------------------------------------

    def _step(self, miner_id: str, task_id: str, step: Step, record: Any, **columns: str) -> None:
        columns = {"step": step, "record": _dump(record), **columns}
        names = ", ".join(f"{name} = ?" for name in columns)
        self._write(
            f"UPDATE tasks SET {names} WHERE task_id = ? AND miner_id = ?",  # noqa: S608  # our own column names
            (*columns.values(), task_id, miner_id),
        )

    def _write(self, sql: str, values: tuple[Any, ...]) -> int:
        with self._mutex, _translated():
            return self._db.execute(sql, values).rowcount

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._mutex, _translated():
            return self._db.execute(sql, values).fetchall()


def _lock(folder: Path) -> int:
    """Hold `folder`/lock until the process ends, however it ends."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise ConfigError(
            f"[state] dir {folder}: another xalora-miner is using it",
            hint="stop the other one, or give this one its own folder with XALORA_STATE_DIR",
        ) from error
    return handle


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise MachineFault(
                f"the journal {path} cannot be opened: {error}", hint="check its folder's rights and disk"
            ) from error
        aside = path.with_name(f"journal.damaged-{int(time.time())}.db")
        for older in path.parent.glob("journal.damaged-*.db"):
            older.unlink()  # they hold what was secret in tasks that are long over
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        log.error("journal_damaged", reason=str(error), moved_to=str(aside), next="starting with an empty journal")
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA cache_size = -256")  # KiB; 2 MB otherwise, and a task is read by its key alone
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise ConfigError(
                f"{path} was written by a newer xalora-miner (schema {version}, this one knows {SCHEMA})",
                hint="run the newer version, or give this one its own folder with XALORA_STATE_DIR",
            )
        if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")
        for number, sql in enumerate(_MIGRATIONS[version:], start=version + 1):
            db.executescript(f"BEGIN; {sql}; PRAGMA user_version = {number}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        raise MachineFault(
            f"the journal cannot be written: {error}", hint="free some disk space, or check the state folder"
        ) from error


def _entry(row: sqlite3.Row) -> Entry:
    """A row, typed. Of a record that cannot be read (another version's, a bad disk's) only id and step are left."""
    step = None if row["step"] == "closed" else row["step"]
    entry = Entry(
        task_id=row["task_id"],
        step=step,
        workflow=row["workflow"],
        prompt_id=row["prompt_id"],
        verdict=row["verdict"],
        ended_at=row["ended_at"],
    )
    try:
        outcome = _OUTCOME.validate_json(row["outcome"]) if row["outcome"] else None
        stages = _stages(step, row["record"])
        if stages and row["lease"]:
            stages = _leased_anew(stages, _LEASE.validate_python(json.loads(row["lease"])))
        return replace(entry, outcome=outcome, **stages)
    except ValueError as error:  # JSONDecodeError and pydantic's ValidationError are both kinds of it
        reason, then = type(error).__name__, "going on with what is left of it"
        log.error("record_unreadable", task_id=entry.task_id, step=step, reason=reason, next=then)
        return entry


def _stages(step: str | None, record: str | None) -> dict[str, Any]:
    """What the record of a step holds, by Entry's names."""
    if step is None or not record:
        return {}
    if step == "leased":
        return {"lease": _LEASE.validate_python(json.loads(record))}
    if step in ("rendered", "uploaded"):
        kind: TypeAdapter[Any] = _RENDERED if step == "rendered" else _UPLOADED
        stage = kind.validate_python(json.loads(record))
        return {step: stage, "job": stage.job, "lease": stage.job.lease}
    if step == "answered":
        return {}
    job = _JOB.validate_python(json.loads(record))
    return {"job": job, "lease": job.lease}


def _leased_anew(stages: dict[str, Any], lease: Lease) -> dict[str, Any]:
    """The stages of a task that was leased again while it was in hand."""
    job = replace(stages["job"], lease=lease) if "job" in stages else None
    return {
        name: lease if name == "lease" else job if name == "job" else replace(stage, job=job)
        for name, stage in stages.items()
    }


def _dump(record: Any) -> str:
    return json.dumps(asdict(record))
