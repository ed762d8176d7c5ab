"""The state folder and the journal in it. The journal is read, never written, and never moved or mended."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from miner.doctor.checks.machine import standing
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.task.journal import SCHEMA
from miner.telemetry.health import Mark

_ELSEWHERE = "give this user the right to write there, or another folder with XALORA_STATE_DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSummary:
    """What is owed by the journal."""

    schema: int
    sound: bool
    unacknowledged: int  # answers that the sequencer has not taken yet
    oldest: float  # Unix seconds of the oldest of them; 0.0 if there is none
    unfinished: int  # tasks without an answer


def state_folder(facts: Facts) -> Iterator[Mark]:
    """Whether the miner can keep there what it must not forget, and whether one does."""
    folder, name = facts.settings.state.dir, "State folder"
    there = standing(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        yield bad(name, f"{there} cannot be written", _ELSEWHERE)
    elif there != folder.absolute():
        if folder.exists():
            yield bad(name, f"{folder} is no folder", "move it away, or set XALORA_STATE_DIR")
        else:
            yield good(name, f"{folder} will be made by the first run")
    elif facts.worker().has_state_lock:
        yield good(name, f"{folder} is in use by the miner that runs")
    else:
        yield good(name, f"{folder} can be written")


def journal(facts: Facts) -> Iterator[Mark]:
    """Whether it can be read, and what is owed."""
    path = facts.settings.state.dir / "journal.db"
    if not path.is_file():
        yield good("Journal", "there is none yet")
        return
    try:
        summary = read_journal(path)
    except sqlite3.Error as error:
        cure = "let the miner start: it moves a damaged one aside and begins anew; tasks in hand are lost"
        yield bad("Journal", f"{path} cannot be read: {error}", cure)
        return
    yield journal_mark(path, summary)
    yield outbox_mark(summary, running=facts.worker().has_state_lock, now=time.time())
    if summary.unfinished and not facts.worker().has_state_lock:
        says = f"{summary.unfinished} tasks were left in the middle"
        yield warning("Tasks in hand", says, "xalora-miner run goes on with them")


def read_journal(path: Path) -> JournalSummary:
    """Raises sqlite3.Error. A miner may be writing meanwhile."""
    with closing(sqlite3.connect(_read_only(path), uri=True, timeout=5.0)) as db:
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        sound = db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        counts = "SELECT count(*), coalesce(min(leased_at), 0.0) FROM tasks WHERE step"
        empty = not schema or schema > SCHEMA
        unacknowledged, oldest = (0, 0.0) if empty else db.execute(f"{counts} = 'answered'").fetchone()
        unfinished = 0 if empty else db.execute(f"{counts} NOT IN ('answered', 'closed')").fetchone()[0]
    return JournalSummary(
        schema=schema, sound=sound, unacknowledged=unacknowledged, oldest=oldest, unfinished=unfinished
    )


def _read_only(path: Path) -> str:
    """A reader of a write-ahead log would make files beside it; where nothing waits in the log, none are needed."""
    log = path.with_name(f"{path.name}-wal")
    quiet = not log.exists() or not log.stat().st_size
    return f"{path.absolute().as_uri()}?{'immutable=1' if quiet else 'mode=ro'}"


def journal_mark(path: Path, summary: JournalSummary) -> Mark:
    """Pure."""
    if summary.schema > SCHEMA:
        says = f"{path} was written by a newer xalora-miner (schema {summary.schema}, this one knows {SCHEMA})"
        return bad("Journal", says, "run the newer version, or give this one its own folder with XALORA_STATE_DIR")
    if not summary.sound:
        cure = "let the miner start: it moves it aside and begins anew; then see the disk's health with smartctl"
        return bad("Journal", f"{path} is damaged", cure)
    return good("Journal", "it is sound")


def outbox_mark(summary: JournalSummary, *, running: bool, now: float) -> Mark:
    """Pure. `now` in Unix seconds."""
    if not summary.unacknowledged:
        return good("Outbox", "every answer is acknowledged")
    hours = (now - summary.oldest) / 3600
    says = f"{summary.unacknowledged} answers wait for the sequencer, the oldest since a task of {hours:.1f} hours ago"
    if running:
        return note("Outbox", says, "none needed: it goes on until they are taken")
    return warning("Outbox", says, "xalora-miner run submits them")
