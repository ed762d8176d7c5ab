"""The state folder and its journal. The journal is only read, never moved or repaired."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.machine.disk import existing_folder
from miner.task.journal_file import DAMAGED, SCHEMA
from miner.telemetry.health import Mark

_ELSEWHERE = "give this user write permission there, or set XALORA_STATE_DIR to another folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSummary:
    """What the journal holds."""

    schema: int
    sound: bool
    unacknowledged: int  # answers that the sequencer has not acknowledged
    oldest: float  # Unix seconds of the oldest of them; 0.0 without one
    unfinished: int  # tasks without an answer
    uncleaned: int = 0  # finished tasks of which something is left in ComfyUI or on disk


def state_folder(facts: Facts) -> Iterator[Mark]:
    """Whether the miner can write there, and whether one runs."""
    folder, name = facts.settings.state.dir, "State folder"
    existing = existing_folder(folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        yield bad(name, f"{existing} is not writable", _ELSEWHERE)
    elif existing != folder.absolute():
        if folder.exists():
            yield bad(name, f"{folder} is not a folder", "move it away, or set XALORA_STATE_DIR")
        else:
            yield good(name, f"the first run will create {folder}")
    elif facts.worker().has_state_lock:
        yield good(name, f"{folder} is in use by the running miner")
    else:
        yield good(name, f"{folder} is writable")


def journal(facts: Facts) -> Iterator[Mark]:
    """Whether it is readable, and what is unfinished."""
    path = facts.settings.state.dir / "journal.db"
    if not path.is_file():
        yield good("Journal", "not created yet")
        return
    try:
        summary = read_journal(path)
    except sqlite3.Error as error:
        cure = "start the miner: it moves a damaged journal aside and starts a new one; unfinished tasks are lost"
        yield bad("Journal", f"{path} cannot be read: {error}", cure)
        return
    yield journal_mark(path, summary)
    yield outbox_mark(summary, running=facts.worker().has_state_lock, now=time.time())
    if summary.unfinished and not facts.worker().has_state_lock:
        says = f"{summary.unfinished} unfinished tasks"
        yield warning("Tasks in hand", says, "xalora-miner run resumes them")
    yield from leftovers_marks(facts, summary.uncleaned)


def leftovers_marks(facts: Facts, uncleaned: int) -> Iterator[Mark]:
    """What is left of finished tasks, and where it cannot be helped."""
    name, comfyui = "Leftovers", facts.settings.comfyui
    if uncleaned:
        says = f"something of {uncleaned} finished tasks is still in ComfyUI or on this disk"
        yield warning(name, says, "start the miner, which erases it; if it stays, see cleanup_delayed in its log")
    if damaged := list(facts.settings.state.dir.glob(DAMAGED)):
        says = f"{damaged[0]} holds secrets of the tasks that were in hand"
        yield note(name, says, f"delete it when you do not need it; the miner does after {_days(facts)}")
    if comfyui.url and (comfyui.output_dir is None or comfyui.input_dir is None):
        says = "of each task, empty files with random names stay in ComfyUI's folders input/xalora and output/xalora"
        yield note(name, says, "set XALORA_COMFYUI_INPUT_DIR and _OUTPUT_DIR where both programs see the same folders")


def _days(facts: Facts) -> str:
    return f"{facts.settings.state.keep_days:g} days"


def read_journal(path: Path) -> JournalSummary:
    """Raises sqlite3.Error. A miner may be writing meanwhile."""
    with closing(sqlite3.connect(_read_only(path), uri=True, timeout=5.0)) as db:
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        sound = db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        counts = "SELECT count(*), coalesce(min(leased_at), 0.0) FROM tasks WHERE step"
        empty = not schema or schema > SCHEMA
        unacknowledged, oldest = (0, 0.0) if empty else db.execute(f"{counts} = 'answered'").fetchone()
        unfinished = 0 if empty else db.execute(f"{counts} NOT IN ('answered', 'closed')").fetchone()[0]
        uncleaned = 0 if empty or schema < 4 else db.execute(f"{counts} = 'closed' AND places != ''").fetchone()[0]
    return JournalSummary(
        schema=schema,
        sound=sound,
        unacknowledged=unacknowledged,
        oldest=oldest,
        unfinished=unfinished,
        uncleaned=uncleaned,
    )


def _read_only(path: Path) -> str:
    """Reading a write-ahead log creates files beside it; with an empty log, `immutable` avoids them."""
    log = path.with_name(f"{path.name}-wal")
    log_is_empty = not log.exists() or not log.stat().st_size
    return f"{path.absolute().as_uri()}?{'immutable=1' if log_is_empty else 'mode=ro'}"


def journal_mark(path: Path, summary: JournalSummary) -> Mark:
    """Pure."""
    if summary.schema > SCHEMA:
        says = f"a newer xalora-miner wrote {path} (schema {summary.schema}, this one knows {SCHEMA})"
        return bad("Journal", says, "run the newer version, or set XALORA_STATE_DIR to another folder")
    if not summary.sound:
        cure = "start the miner: it moves the journal aside and starts a new one; then check the disk with smartctl"
        return bad("Journal", f"{path} is damaged", cure)
    return good("Journal", "not damaged")


def outbox_mark(summary: JournalSummary, *, running: bool, now: float) -> Mark:
    """Pure. `now` in Unix seconds."""
    if not summary.unacknowledged:
        return good("Outbox", "every answer is acknowledged")
    hours = (now - summary.oldest) / 3600
    says = f"{summary.unacknowledged} answers are not acknowledged; the oldest task is {hours:.1f} hours old"
    if running:
        return note("Outbox", says, "none needed: the miner retries until they are acknowledged")
    return warning("Outbox", says, "xalora-miner run submits them")
