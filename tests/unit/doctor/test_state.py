"""The state folder, the journal, and a running miner."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from miner.doctor.checks.machine import ports
from miner.doctor.checks.state import JournalSummary, journal, journal_mark, outbox_mark, read_journal, state_folder
from miner.doctor.checks.worker import worker
from miner.doctor.facts import WorkerStatus, is_state_locked
from miner.task.journal import Journal
from miner.task.journal_file import SCHEMA
from miner.task.ledger import Ledger
from miner.task.stages import Closed, Lease, Outcome
from tests.support.testbed import MINER_ID, Testbed, free_port, until
from tests.unit.doctor.conftest import levels, only

LEASE = Lease(
    task_id="leased",
    task_type="upscaler",
    workflow_id="4",
    parameters={},
    target=None,
    timeout_seconds=None,
    leased_at=1.0,
)
SOUND = JournalSummary(schema=SCHEMA, sound=True, unacknowledged=0, oldest=0.0, unfinished=0)


@pytest.fixture
def folder(tmp_path):
    """A state folder whose journal has two unacknowledged answers, one unfinished task and one that is done."""
    with closing(Journal(tmp_path / "state")) as written:
        ledger = Ledger(miner_id=MINER_ID, journal=written, folder=tmp_path)
        for task_id in ("one", "two", "done"):
            ledger.answer_unknown(Outcome(task_id=task_id, success=False, msg="no"))
        ledger.advance("done", Closed(verdict="acknowledged"))
        ledger.take(LEASE)
    return tmp_path / "state"


# ---- the folder -------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_good_and_is_not_created(facts_of, tmp_path):
    assert [mark.level for mark in state_folder(facts_of())] == ["good"]
    assert [mark.level for mark in journal(facts_of())] == ["good"]
    assert not (tmp_path / "state").exists()


def test_a_writable_folder_is_good(facts_of, folder):
    (mark,) = state_folder(facts_of())
    assert (mark.level, mark.says) == ("good", f"{folder} is writable")


def test_a_file_in_its_place_is_bad(facts_of, tmp_path):
    (tmp_path / "state").touch()
    assert [mark.level for mark in state_folder(facts_of())] == ["bad"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_bad(facts_of, folder):
    folder.chmod(0o500)
    assert [mark.level for mark in state_folder(facts_of())] == ["bad"]


# ---- the journal ------------------------------------------------------------------------------------------------


def test_unfinished_tasks_are_reported_and_nothing_changes(facts_of, folder):
    before = {path.name: stat.S_IFMT(path.stat().st_mode) for path in folder.iterdir()}
    told = list(journal(facts_of()))
    assert levels(told) == {"Journal": "good", "Outbox": "warning", "Tasks in hand": "warning"}
    assert "2 answers" in only(told, "Outbox").says
    assert "1 unfinished" in only(told, "Tasks in hand").says
    assert {path.name: stat.S_IFMT(path.stat().st_mode) for path in folder.iterdir()} == before


def test_a_journal_in_use_can_be_read(facts_of, tmp_path):
    with closing(Journal(tmp_path / "state")) as open_one:
        ledger = Ledger(miner_id=MINER_ID, journal=open_one, folder=tmp_path)
        ledger.answer_unknown(Outcome(task_id="one", success=True))
        facts = facts_of()
        assert is_state_locked(tmp_path / "state")
        assert levels(journal(facts)) == {"Journal": "good", "Outbox": "note"}
        assert "in use" in only(state_folder(facts), "State folder").says
    assert not is_state_locked(tmp_path / "state")


def test_a_journal_without_unfinished_tasks_is_good(facts_of, tmp_path):
    Journal(tmp_path / "state").close()
    assert levels(journal(facts_of())) == {"Journal": "good", "Outbox": "good"}
    assert outbox_mark(SOUND, running=False, now=0.0).level == "good"


def test_a_journal_that_is_not_a_database_is_bad_and_is_left_alone(facts_of, folder):
    path = folder / "journal.db"
    path.write_bytes(b"no database at all" * 100)
    (mark,) = journal(facts_of())
    assert (mark.name, mark.level) == ("Journal", "bad")
    assert path.read_bytes().startswith(b"no database")


def test_a_journal_with_a_damaged_page_is_bad(facts_of, folder):
    path = folder / "journal.db"
    data = bytearray(path.read_bytes())
    data[4096 : 2 * 4096] = os.urandom(4096)
    path.write_bytes(data)
    assert only(journal(facts_of()), "Journal").level == "bad"


def test_a_journal_of_a_newer_program_is_bad(facts_of, folder):
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    assert only(journal(facts_of()), "Journal").level == "bad"
    assert read_journal(folder / "journal.db").schema == SCHEMA + 1
    assert journal_mark(folder / "journal.db", SOUND).level == "good"


# ---- the worker -------------------------------------------------------------------------------------------------


def test_without_a_worker_it_is_noted(facts_of):
    assert levels(worker(facts_of())) == {"Worker": "note"}
    assert levels(worker(facts_of(status={"port": free_port()}))) == {"Worker": "note"}


def test_a_worker_that_does_not_answer_is_a_warning(facts_of, tmp_path):
    with closing(Journal(tmp_path / "state")):
        (mark,) = worker(facts_of())
    assert mark.level == "warning"
    assert "[status] is off" in mark.says


def test_another_server_is_not_taken_for_a_worker(facts_of, devnet):
    port = int(devnet.url.rpartition(":")[2])
    assert levels(worker(facts_of(status={"port": port}))) == {"Worker": "note"}


def test_a_running_worker_is_queried_and_not_disturbed(facts_of, tmp_path, engine):
    port = free_port()
    with Testbed(tmp_path) as testbed:
        testbed.start_devnet()
        testbed.start_worker(engine, status__enabled=True, status__port=port)
        facts = facts_of(status={"port": port}, comfyui={"url": engine})
        until(lambda: facts_of(status={"port": port}).worker().state, why="its status page")
        told = list(worker(facts))
        assert only(told, "Worker").says.startswith("working, 0 tasks in hand")
        assert "Worker: Sequencer" in levels(told)
        assert facts.worker().has_state_lock
        assert not facts.worker().is_idle
        assert only(ports(facts), "Ports").says == "in use by the running miner"
        assert testbed.worker.alive


def test_a_paused_worker_with_a_task_in_hand_is_not_idle():
    assert WorkerStatus(has_state_lock=True, state="paused").is_idle
    assert not WorkerStatus(has_state_lock=True, state="paused", in_hand=1).is_idle


# ---- leftovers --------------------------------------------------------------------------------------------------


def test_what_is_left_of_finished_tasks_is_told(facts_of, folder):
    (folder / "journal.damaged-1.db").touch()
    with closing(sqlite3.connect(folder / "journal.db")) as db, db:
        db.execute("UPDATE tasks SET places = '{}' WHERE step = 'closed'")
    facts = facts_of(comfyui={"url": "http://127.0.0.1:1"})
    assert [mark.level for mark in journal(facts) if mark.name == "Leftovers"] == ["warning", "note", "note"]
