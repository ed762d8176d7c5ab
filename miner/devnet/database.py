"""The tables of a devnet, in one SQLite file.

It promises that what was committed is there after the process was killed. One connection is used, on the event loop's
thread alone, so no two changes ever overlap; a second devnet on the same file is refused.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miner.devnet.errors import DevnetError

SCHEMA_VERSION = 3

_SCHEMA = """
CREATE TABLE secret (value BLOB NOT NULL);

CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
    consumer_id TEXT NOT NULL, key_hash TEXT NOT NULL, job_id TEXT NOT NULL,
    task_type TEXT NOT NULL, workflow_id TEXT, any_miner INTEGER NOT NULL, details TEXT NOT NULL,
    timeout REAL, target TEXT NOT NULL, details_form TEXT NOT NULL, extra TEXT NOT NULL,
    created_at REAL NOT NULL, ended_at REAL,
    result TEXT, msg TEXT, inference_latency REAL, upload_latency REAL
);
CREATE INDEX tasks_waiting ON tasks (seq) WHERE status = 'waiting';

CREATE TABLE leases (
    seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL, miner_id TEXT NOT NULL, workflow_id TEXT NOT NULL,
    key TEXT NOT NULL, leased_at REAL NOT NULL, deadline REAL, ended_at REAL, ended TEXT,
    told INTEGER NOT NULL DEFAULT FALSE, progress TEXT
);
CREATE INDEX leases_open ON leases (miner_id) WHERE ended_at IS NULL;
CREATE INDEX leases_of_task ON leases (task_id, miner_id);
CREATE INDEX leases_of_key ON leases (key);
CREATE INDEX leases_ended ON leases (ended_at) WHERE ended <> 'answered';

CREATE TABLE miners (
    miner_id TEXT PRIMARY KEY, seen_at REAL NOT NULL, workflow_ids TEXT NOT NULL, version TEXT, hardware TEXT
);

CREATE TABLE answers (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, task_id TEXT NOT NULL, miner_id TEXT NOT NULL,
    verdict TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX answers_of_task ON answers (task_id);

CREATE TABLE objects (
    bucket TEXT NOT NULL, key TEXT NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL, content_type TEXT NOT NULL,
    stored_at REAL NOT NULL, PRIMARY KEY (bucket, key)
);
"""


def open_database(path: Path, *, durable: bool) -> sqlite3.Connection:
    """The database at `path`, created if missing. Raises DevnetError: in use, of another version, damaged."""
    db = sqlite3.connect(path, timeout=0.2, isolation_level=None)
    db.row_factory = sqlite3.Row
    try:
        # Exclusive: one devnet per folder, and no shared memory for the write-ahead log.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
        _prepare(db, path)
    except sqlite3.Error as error:
        db.close()
        raise DevnetError(
            f"devnet: {path} cannot be used: {error}",
            hint="stop the other devnet that uses this folder, or choose another folder",
        ) from error
    except DevnetError:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        raise DevnetError(
            f"devnet: {path} was written by another version ({version}, and this one writes {SCHEMA_VERSION})",
            hint="choose an empty folder",
        )
    if version == 0:
        with transaction(db):
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute("INSERT INTO secret VALUES (?)", (secrets.token_bytes(32),))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. Must not be nested, nor held across an `await`."""
    db.execute("BEGIN IMMEDIATE")
    with db:  # rolls back, too, if the commit fails
        yield


def signing_secret(db: sqlite3.Connection) -> bytes:
    """The key that signs upload URLs; stored, so that they survive a restart."""
    secret: bytes = db.execute("SELECT value FROM secret").fetchone()[0]
    return secret
