"""Where installed LoRAs came from, and when a task last used one: in SQLite in the state folder, beside the hashes.

Losing it costs only what `models list` shows, and that `prune` leaves alone what it no longer knows as named.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from miner.telemetry import clock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS loras (
    name TEXT PRIMARY KEY, origin TEXT NOT NULL DEFAULT '', named INTEGER NOT NULL DEFAULT 0, used_at REAL
) WITHOUT ROWID;
"""
_BUSY_TIMEOUT = 2.0  # seconds
_NOTE_EVERY = 60.0  # seconds between two notes of one LoRA's use


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What is known of an installed LoRA."""

    origin: str = ""  # without secrets; "": unknown
    named: bool = False  # fetched since `[loras]` named it
    used_at: float | None = None  # Unix seconds


class LoraRegister:
    """Any thread and process may use it. What cannot be read or written is left out: nothing depends on it."""

    def __init__(self, state: Path, *, clock: Callable[[], float] = clock.now) -> None:
        self._path = state / "models.db"
        self._clock = clock
        self._noted: dict[str, float] = {}
        self._lock = threading.Lock()

    def used(self, name: str) -> None:
        """A task uses the LoRA of ComfyUI's name `name` now. Blocks for a disk flush at most."""
        now = self._clock()
        with self._lock:
            if now - self._noted.get(name, float("-inf")) < _NOTE_EVERY:
                return
            self._noted[name] = now
        self._run(
            "INSERT INTO loras (name, used_at) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET used_at = excluded.used_at",
            (name, now),
        )

    def fetched(self, name: str, *, origin: str, named: bool) -> None:
        self._run(
            "INSERT INTO loras (name, origin, named) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET origin = excluded.origin, named = excluded.named",
            (name, origin, int(named)),
        )

    def forget(self, name: str) -> None:
        self._run("DELETE FROM loras WHERE name = ?", (name,))

    def all(self) -> dict[str, Registered]:
        """By ComfyUI's names."""
        rows = self._run("SELECT name, origin, named, used_at FROM loras", ())
        return {name: Registered(origin=origin, named=bool(named), used_at=at) for name, origin, named, at in rows}

    def _run(self, sql: str, values: tuple[object, ...]) -> list[tuple[str, str, int, float | None]]:
        with suppress(sqlite3.Error, OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None)) as db:
                db.executescript(_SCHEMA)
                return db.execute(sql, values).fetchall()
        return []
