"""The journal's file: lock, schema, migrations."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import structlog

from miner.task.errors import ConfigError

log = structlog.get_logger()

_OWN = "make it this user's with `sudo chown -R {user} {folder}`"
_ROOM = "free disk space"
_WRITABLE = "mount its disk for writing"
_FOLDER = "move that away"
_CURES = {
    errno.EACCES: _OWN,
    errno.EPERM: _OWN,
    errno.EROFS: _WRITABLE,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EEXIST: _FOLDER,
    errno.ENOTDIR: _FOLDER,
    errno.EISDIR: _FOLDER,
}
_SQLITE_CURES = {  # sqlite3 names no errno
    "full": _ROOM,
    "disk I/O error": "check its disk, and that it has free space",
    "readonly": _OWN,
    "unable to open": _OWN,
    "locked": "stop the program that has its journal open",
}

_MIGRATIONS: list[str] = [
    """
    CREATE TABLE tasks (
        task_id    TEXT NOT NULL,
        miner_id   TEXT NOT NULL,
        step       TEXT NOT NULL,      -- the stage's name
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
    ALTER TABLE tasks ADD COLUMN lease TEXT;  -- JSON of the Lease
    """,
    """
    ALTER TABLE tasks ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;  -- renders begun
    ALTER TABLE tasks ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;   -- runs of the program that ended over it
    ALTER TABLE tasks ADD COLUMN places TEXT NOT NULL DEFAULT '';      -- JSON of Places; '' once cleaned
    CREATE TABLE running (since REAL NOT NULL);                        -- a row while the program runs
    """,
    """
    CREATE TEMP TABLE open AS SELECT task_id, miner_id, lease, record FROM tasks
        WHERE step NOT IN ('answered', 'closed');
    ALTER TABLE tasks DROP COLUMN lease;
    ALTER TABLE tasks DROP COLUMN record;
    ALTER TABLE tasks ADD COLUMN pad TEXT;     -- see PAD
    ALTER TABLE tasks ADD COLUMN lease TEXT;   -- JSON of the Lease; bare once answered, erased when closed
    ALTER TABLE tasks ADD COLUMN record TEXT;  -- JSON of the stage's dataclass; erased once answered
    ALTER TABLE tasks ADD COLUMN answer TEXT;  -- JSON of the Outcome as it is submitted; erased when closed
    UPDATE tasks SET (pad, lease, record) = (
        SELECT hex(zeroblob(600)), lease, record FROM open AS o
        WHERE o.task_id = tasks.task_id AND o.miner_id = tasks.miner_id
    ) WHERE step NOT IN ('answered', 'closed');
    DROP TABLE open;
    """,
]
"""Each migrates the schema by one version (`user_version`). Append only."""

SCHEMA = len(_MIGRATIONS)  # current `user_version`

PAD = "0" * 1200
"""Comes before a row's secrets, so that they lie on overflow pages (at most 1,002 bytes of a row are in the tree
itself). `secure_delete` wipes those once they are free, but leaves copies in a tree's pages that split or merge."""

DAMAGED = "journal.damaged-*.db"


def unusable(folder: Path, error: Exception) -> ConfigError:
    """The error for a state folder that cannot be used, with its cure."""
    if isinstance(error, OSError):
        reason, cure = f"{error.filename or folder}: {error.strerror or error}", _CURES.get(error.errno or 0, "")
    else:
        reason = str(error)
        cure = next((cure for words, cure in _SQLITE_CURES.items() if words in reason), "")
    cure = cure.format(user=f"{os.getuid()}:{os.getgid()}", folder=folder)
    elsewhere = "set another folder with XALORA_STATE_DIR"
    return ConfigError(
        f"[state] dir {folder} cannot be used: {reason}", hint=f"{cure}, or {elsewhere}" if cure else elsewhere
    )


def lock(folder: Path) -> int:
    """Make `folder` if needed, and lock `folder`/lock until the process ends; returns the file descriptor.

    Raises ConfigError if it is in use or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(PermissionError):  # owned by another user
            folder.chmod(0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(folder, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if not isinstance(error, BlockingIOError):
            raise unusable(folder, error) from error
        raise ConfigError(
            f"[state] dir {folder}: another xalora-miner is using it",
            hint="stop the other one, or set another folder with XALORA_STATE_DIR",
        ) from error
    return handle


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create it; move a damaged one aside. Raises ConfigError for a newer one, OSError, sqlite3.Error."""
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise
        aside = path.with_name(DAMAGED.replace("*", str(int(time.time()))))
        for older in path.parent.glob(DAMAGED):
            older.unlink()  # contain secrets of old tasks
        path.rename(aside)
        aside.chmod(0o600)
        os.utime(aside)  # `prune_damaged` counts from now
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        log.error("journal_damaged", reason=str(error), moved_to=str(aside), next="starting with an empty journal")
        return _connect(path)


def prune_damaged(folder: Path, *, before: float) -> int:
    """Delete damaged journals that were moved aside before `before` (Unix seconds): they hold secrets of the tasks that
    were in hand. Returns the number. Raises OSError."""
    old = [path for path in folder.glob(DAMAGED + "*") if path.stat().st_mtime < before]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def empty_log(path: Path) -> bool:
    """Move the write-ahead log of the database into its file and empty it: until then it holds erased secrets.

    Returns whether it is empty; a reader in the midst of a query prevents that. Waits for nobody, but takes a flush of
    the disk, for most of which the database can be written. Raises sqlite3.Error.
    """
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0.0)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        busy, left, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy and left <= 0


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA cache_size = -256")  # KiB; the default is 2 MB, and tasks are read by key
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise ConfigError(
                f"{path} was written by a newer xalora-miner (schema {version}, this one supports {SCHEMA})",
                hint="run the newer version, or set another folder with XALORA_STATE_DIR",
            )
        if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")
        for number, sql in enumerate(_MIGRATIONS[version:], start=version + 1):
            db.executescript(f"BEGIN; {sql}")
            if number == 4:
                _split_leases(db)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
            if number == 5:
                with suppress(sqlite3.OperationalError):  # a disk without room for a copy
                    db.execute("VACUUM")  # wipes what earlier versions left in pages of the tree
    except BaseException:
        db.close()
        raise
    return db


def _split_leases(db: sqlite3.Connection) -> None:
    """To schema 4: move each lease out of its record into a column."""
    for row in db.execute("SELECT * FROM tasks WHERE step NOT IN ('answered', 'closed')").fetchall():
        try:
            lease, record, prompt_id = _split_record(row["step"], json.loads(row["record"]), row["prompt_id"])
        except (ValueError, TypeError, KeyError):
            continue  # unreadable before, too
        places = json.dumps({"prompts": [prompt_id] if prompt_id else [], "folders": []})
        db.execute(
            "UPDATE tasks SET lease = coalesce(lease, ?), record = ?, attempts = ?, places = ?"
            " WHERE task_id = ? AND miner_id = ?",
            (
                json.dumps(lease),
                json.dumps(record),
                int(bool(row["prompt_id"])),
                places,
                row["task_id"],
                row["miner_id"],
            ),
        )


def _split_record(step: str, record: dict[str, Any], prompt_id: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Split a schema 3 record into lease, stage and prompt id."""
    if step == "leased":
        return record, {}, ""
    if step in ("rendered", "uploaded"):
        return record["job"].pop("lease"), record, prompt_id
    prompt_id = prompt_id or str(uuid.uuid4())
    return record.pop("lease"), {"job": record, "prompt_id": prompt_id}, prompt_id
