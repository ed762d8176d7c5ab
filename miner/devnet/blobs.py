"""Objects on disk: streamed in, fsynced, renamed; the database says which file is which object.

An object is there whole or not at all, a new version replaces the old in one step, and no body is held in memory. Names
of objects never become names of files.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from miner.devnet.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file in the store without an object yet. `size` is in bytes."""

    file: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object. `stored_at` is Unix seconds."""

    path: Path
    file: str
    size: int
    content_type: str
    stored_at: float


class Blobs:
    """The store's files, under `root`. `clock` returns Unix seconds."""

    def __init__(self, db: sqlite3.Connection, root: Path, *, durable: bool, clock: Callable[[], float]) -> None:
        self._db = db
        self._durable = durable
        self._clock = clock
        self._incoming = root / "incoming"
        self._objects = root / "objects"
        shutil.rmtree(self._incoming, ignore_errors=True)  # bodies that a killed process did not finish
        self._incoming.mkdir(parents=True)
        self._objects.mkdir(exist_ok=True)

    def sweep(self) -> None:
        """Delete files without an object."""
        named = {row[0] for row in self._db.execute("SELECT file FROM objects")}
        for path in self._objects.iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)

    async def receive(self, chunks: AsyncIterator[bytes]) -> Blob:
        """Write a body to a new file. Passes on what `chunks` raises, and leaves no file then."""
        path = self._incoming / uuid.uuid4().hex
        size = 0
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    # On the loop's thread: a copy into the page cache costs less than a hop to another thread.
                    file.write(chunk)
                    size += len(chunk)
                file.flush()
                if self._durable:
                    await asyncio.to_thread(os.fsync, file.fileno())
            self._keep(path)
        finally:
            path.unlink(missing_ok=True)
        return Blob(file=path.name, size=size)

    def head(self, blob: Blob, size: int) -> bytes:
        """The file's first bytes."""
        with (self._objects / blob.file).open("rb") as file:
            return file.read(size)

    def put(self, bucket: str, key: str, blob: Blob, *, content_type: str) -> None:
        """Make a file the object; deletes the object's former file."""
        old = self.find(bucket, key)
        with transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)",
                (bucket, key, blob.file, blob.size, content_type, self._clock()),
            )
        if old is not None:
            self.discard(old.file)

    def rename(self, bucket: str, key: str, new: str) -> None:
        """Give an object another key, which must be free."""
        self._db.execute("UPDATE objects SET key = ? WHERE bucket = ? AND key = ?", (new, bucket, key))

    def find(self, bucket: str, key: str) -> Stored | None:
        """The object, or None."""
        row = self._db.execute("SELECT * FROM objects WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        if row is None:
            return None
        return Stored(
            path=self._objects / row["file"],
            file=row["file"],
            size=row["size"],
            content_type=row["content_type"],
            stored_at=row["stored_at"],
        )

    def discard(self, file: str) -> None:
        """Delete a file without an object."""
        (self._objects / file).unlink(missing_ok=True)

    def _keep(self, path: Path) -> None:
        path.replace(self._objects / path.name)
        if self._durable:
            folder = os.open(self._objects, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
