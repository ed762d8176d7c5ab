"""The journal: records survive the process, secrets do not survive the task."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest

from miner.task.errors import ConfigError, MachineFault
from miner.task.journal import DAY, RECORD_LOST, Journal
from miner.task.stages import (
    Answered,
    Closed,
    Leased,
    Outcome,
    Places,
    Prepared,
    PresignedPut,
    Prompted,
    TemporaryS3,
)
from tests.support.paths import ROOT
from tests.support.sample_tasks import JOB, LEASE, ME, OUTCOME, WAY, task


def lease(journal, task_id="task-1", **facts):
    journal.record(ME, task(task_id=task_id, **facts), lease=True)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def test_each_stage_is_read_back_as_it_was_written(journal):
    places = Places(prompts=("p-0", "p-1"), folders=("/state/lane-0/p-1",))
    for stage in WAY:
        facts = {"workflow": "upscaler", "attempts": 2, "places": places} if stage is not WAY[0] else {}
        written = task(stage, **facts)
        journal.record(ME, written, lease=stage is WAY[0])
        (found,) = journal.unfinished(ME)
        if stage is WAY[-1]:
            assert (found.stage, found.attempts, found.places) == (stage, 2, places)
        else:
            assert found == written


def test_a_closed_task_keeps_its_outcome_and_no_secret(tmp_path):
    journal = Journal(tmp_path)
    for stage in (*WAY, Closed(verdict="acknowledged")):
        journal.record(ME, task(stage), lease=stage is WAY[0])
    assert journal.unfinished(ME) == []
    known = journal.known(ME, "task-1")
    assert known is not None
    assert (known.outcome, known.verdict) == (OUTCOME, "acknowledged")
    journal.close()
    assert b"very-secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_an_answered_task_keeps_its_whole_answer_until_the_acknowledgement_and_no_secret(journal, tmp_path):
    lease(journal, workflow="upscaler")
    journal.record(ME, task(WAY[2], workflow="upscaler"))
    answered = Answered(outcome=replace(OUTCOME, msg="bad 'quote'"), told="bad '…'")
    journal.record(ME, task(answered, workflow="upscaler"))
    assert journal.forget()
    assert b"very-secret" not in content(tmp_path)
    assert b"example.org" not in content(tmp_path)
    (found,) = journal.unfinished(ME)
    assert (found.stage, found.unknown) == (answered, False)
    assert found.lease == replace(LEASE, workflow_id="", parameters={}, target=None)
    assert journal.known(ME, "task-1").outcome.msg == "bad '…'"
    journal.record(ME, task(Closed(verdict="acknowledged"), workflow="upscaler"))
    assert journal.forget()
    assert b"quote" not in content(tmp_path)


def test_a_reader_keeps_the_write_ahead_log_and_nobody_waits_for_it(journal, tmp_path):
    lease(journal)
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM tasks").fetchone()
        journal.record(ME, task(Closed(verdict="taken away")))
        assert not journal.forget()
        lease(journal, "meanwhile")
        reader.execute("COMMIT")
        assert journal.forget()
    assert (tmp_path / "journal.db-wal").stat().st_size == 0


@pytest.mark.parametrize("seed", range(10))
def test_no_page_keeps_a_secret_whatever_tasks_come_and_go(journal, tmp_path, seed):
    """Rows of all sizes, so that pages of the tree are split and merged."""
    rng, mark = random.Random(seed), "zqxvery"
    held = {}
    for number in range(300):
        task_id = rng.choice(list(held)) if len(held) > rng.choice([1, 3, 20]) else f"task-{rng.randrange(10**9)}"
        stage = held.get(task_id)
        if stage is None:
            target = PresignedPut(url=f"https://host/{mark * rng.randrange(1, 300)}")
            lease(journal, task_id, lease=replace(LEASE, task_id=task_id, target=target))
            held[task_id] = Leased()
        elif stage == Leased():
            job = replace(JOB, values={"prompt": mark * rng.randrange(1, 1000)})
            held[task_id] = Prepared(job=job, prompt_id=f"p-{number}")
            journal.record(ME, task(held[task_id], task_id))
        else:
            outcome = Outcome(task_id=task_id, success=False, msg=mark * rng.randrange(1, 100))
            journal.record(ME, task(Answered(outcome=outcome, told="bad"), task_id))
            journal.record(ME, task(Closed(verdict="acknowledged"), task_id))
            del held[task_id]
    for task_id in held:
        journal.record(ME, task(Closed(verdict="taken away"), task_id))
    assert journal.forget()
    assert mark.encode() not in content(tmp_path)


def content(folder):
    """Of all files together."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_a_new_lease_replaces_the_old_one(journal):
    lease(journal)
    journal.record(ME, task(WAY[1]))
    other = replace(LEASE, target=TemporaryS3(access_key_id="a", secret_access_key="b", session_token="c"))
    journal.record(ME, task(WAY[1], lease=other), lease=True)
    journal.record(ME, task(WAY[3]))
    (found,) = journal.unfinished(ME)
    assert (found.lease, found.stage) == (other, WAY[3])


def test_other_miner_ids_tasks_are_separate(journal):
    lease(journal)
    assert journal.unfinished(ME + "-other") == []


def test_an_answer_to_an_unknown_task_is_kept(journal):
    outcome = Outcome(task_id="stranger", success=False, msg="lost")
    journal.record(ME, task(Answered(outcome=outcome), task_id="stranger", unknown=True))
    (found,) = journal.unfinished(ME)
    assert (found.stage, found.unknown) == (Answered(outcome=outcome), True)


def test_places_are_kept_until_cleaned(journal):
    places = Places(prompts=("p-1",))
    lease(journal)
    journal.record(ME, task(WAY[-1], places=places, attempts=1))
    journal.record(ME, task(Closed(verdict="acknowledged"), places=places, attempts=1))
    assert journal.uncleaned(ME) == [("task-1", places)]
    journal.cleaned(ME, {"task-1": Places()})
    assert journal.uncleaned(ME) == []


def test_a_crash_is_counted_for_each_task_in_hand(tmp_path):
    script = f"""
import os, sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.unit.task.test_journal import WAY, Journal, lease, task, ME
journal = Journal(Path({str(tmp_path)!r}))
if not journal.unfinished(ME):
    lease(journal)
    lease(journal, "answered")
    journal.record(ME, task(WAY[-1], task_id="answered"))
os.kill(os.getpid(), 9)
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    for _ in range(2):  # a clean shutdown does not count
        journal = Journal(tmp_path)
        assert {found.task_id: found.crashes for found in journal.unfinished(ME)} == {"task-1": 2, "answered": 0}
        journal.close()


def test_a_journal_of_schema_3_is_migrated(tmp_path):
    """The file, by that version: a task at each step, one leased again, one torn, one never leased."""
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.executescript((ROOT / "tests/unit/task/journal-schema-3.sql").read_text())
    db.close()
    journal = Journal(tmp_path)
    found = {task.task_id: task for task in journal.unfinished(ME)}
    steps = ["leased", "prepared", "prompted", "rendered", "uploaded", "answered"]
    assert [found[step].stage.name for step in steps] == steps
    job = replace(JOB, images={"image": "https://example.org/a.png"}, deadline=1060.0)
    assert found["leased"].lease.target == LEASE.target
    assert found["prepared"].stage.job == job
    assert found["prompted"].stage == Prompted(job=job, prompt_id="p-prompted")
    assert (found["prompted"].attempts, found["prompted"].places) == (1, Places(prompts=("p-prompted",)))
    assert found["rendered"].stage == replace(WAY[3], job=job, prompt_id="p-rendered")
    assert found["uploaded"].stage == replace(WAY[4], job=job)
    assert found["answered"].stage.outcome.result == "out"
    assert found["again"].lease.target == PresignedPut(url="https://store.example/anew?signature=very-secret")
    assert (found["torn"].stage, found["torn"].lease.fault) == (Leased(), RECORD_LOST)
    assert found["stranger"].stage.outcome.msg == "lost"
    assert journal.known(ME, "closed").verdict == "acknowledged"
    journal.close()


def test_records_survive_sigkill(tmp_path):
    script = f"""
import os, sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.unit.task.test_journal import Journal, lease
lease(Journal(Path({str(tmp_path)!r})))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    journal = Journal(tmp_path)
    assert journal.unfinished(ME)[0].lease == LEASE
    journal.close()


@pytest.mark.usefixtures("journal")
def test_two_miners_cannot_share_a_journal(tmp_path):
    with pytest.raises(ConfigError, match="another xalora-miner is using it"):
        Journal(tmp_path)


def test_only_the_owner_can_read_the_files(journal, tmp_path):
    lease(journal)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b""], ids=["garbage", "emptied"])
def test_a_damaged_journal_is_moved_aside(tmp_path, damage):
    first = Journal(tmp_path)
    lease(first)
    first.close()
    (tmp_path / "journal.db").write_bytes(damage)
    journal = Journal(tmp_path)
    lease(journal)
    assert [found.task_id for found in journal.unfinished(ME)] == ["task-1"]
    journal.close()
    assert bool(damage) == bool(list(tmp_path.glob("journal.damaged-*.db")))


def test_a_truncated_journal_is_moved_aside(tmp_path):
    first = Journal(tmp_path)
    for number in range(200):
        lease(first, f"t{number}")
    first.close()
    path = tmp_path / "journal.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    Journal(tmp_path).close()
    assert list(tmp_path.glob("journal.damaged-*.db"))


def test_a_newer_version_s_journal_is_refused_and_left_alone(tmp_path):
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer xalora-miner"):
        Journal(tmp_path)
    assert not list(tmp_path.glob("journal.damaged-*.db"))


def test_prune_deletes_old_closed_tasks_and_never_open_ones(tmp_path):
    now = [0.0]
    journal = Journal(tmp_path, clock=lambda: now[0])
    for task_id in ("old", "new", "open"):
        lease(journal, task_id)
    journal.record(ME, task(Closed(verdict="acknowledged"), task_id="old"))
    now[0] = 8 * DAY
    journal.record(ME, task(Closed(verdict="acknowledged"), task_id="new"))
    assert journal.prune(keep_days=7) == 1
    assert journal.known(ME, "old") is None
    assert journal.known(ME, "new") is not None
    assert [found.task_id for found in journal.unfinished(ME)] == ["open"]
    journal.close()


def test_a_damaged_journal_is_pruned_with_the_rest(tmp_path):
    Journal(tmp_path).close()
    (tmp_path / "journal.db").write_bytes(b"very-secret" * 1000)
    os.utime(tmp_path / "journal.db", (0, 0))
    now = [time.time()]
    journal = Journal(tmp_path, clock=lambda: now[0])
    (damaged,) = tmp_path.glob("journal.damaged-*")
    assert stat.S_IMODE(damaged.stat().st_mode) == 0o600
    journal.prune(keep_days=7)
    assert damaged.exists()  # it is kept from when it was found
    now[0] += 8 * DAY
    journal.prune(keep_days=7)
    assert b"very-secret" not in content(tmp_path)
    journal.close()


def test_a_full_disk_is_a_machine_fault(tmp_path):
    journal = Journal(tmp_path)
    journal._db.execute("PRAGMA max_page_count = 8")  # what SQLite does when the disk is full: SQLITE_FULL

    def fill():
        for number in range(1000):
            lease(journal, f"t{number}")

    with pytest.raises(MachineFault, match="full"):
        fill()
    journal.close()
