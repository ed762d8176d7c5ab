"""The hashes of model files, and which files this miner downloaded, in SQLite in the state folder.

An entry is valid while the file keeps its size and modification time. Losing the database costs only time: files are
hashed again, and `prune` leaves alone what it no longer knows as a download.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miner.task.errors import MachineFault

_SCHEMA = """
CREATE TABLE IF NOT EXISTS hashes (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS downloads (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""
_BUSY_TIMEOUT = 10.0  # seconds that another process may lock the file


class HashDatabase:
    """Several processes may open it. Any thread may call; each call blocks for a disk flush at most.

    Raises MachineFault where the file cannot be read or written.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "models.db"
        self._mutex = threading.Lock()
        with self._translated():
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, check_same_thread=False, isolation_level=None)
            try:
                self._db.executescript(_SCHEMA)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        self._db.close()

    def hash_of(self, path: Path) -> str:
        """The SHA-256 of the file as it is now, if known; else ""."""
        return self._fresh("SELECT size, mtime_ns, sha256 FROM hashes WHERE path = ?", path)

    def downloaded_hash(self, path: Path) -> str:
        """The SHA-256 with which this miner downloaded the file, if it is unchanged since; else ""."""
        return self._fresh("SELECT size, mtime_ns, sha256 FROM downloads WHERE path = ?", path)

    def add_hash(self, path: Path, stat: os.stat_result, sha256: str) -> None:
        """Save the hash of a file; `stat` has to be taken before the file is read."""
        self._put("hashes", path, stat, sha256)

    def add_download(self, path: Path, stat: os.stat_result, sha256: str) -> None:
        """Save the file as a download, with its hash."""
        self._put("downloads", path, stat, sha256)
        self._put("hashes", path, stat, sha256)

    def forget(self, path: Path) -> None:
        for table in ("downloads", "hashes"):
            self._run(f"DELETE FROM {table} WHERE path = ?", (str(path),))  # noqa: S608  # not from outside

    def _put(self, table: str, path: Path, stat: os.stat_result, sha256: str) -> None:
        values = (str(path), stat.st_size, stat.st_mtime_ns, sha256)
        self._run(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", values)  # noqa: S608

    def _fresh(self, query: str, path: Path) -> str:
        rows = self._run(query, (str(path),))
        try:
            stat = path.lstat()
        except OSError:
            return ""
        return next((sha256 for size, mtime, sha256 in rows if (size, mtime) == (stat.st_size, stat.st_mtime_ns)), "")

    def _run(self, query: str, values: tuple[object, ...]) -> list[Any]:
        with self._mutex, self._translated():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "check that state.dir is writable; if the file is damaged, delete it: it is created again"
            raise MachineFault(f"{self._path}: {error}", hint=hint) from error
