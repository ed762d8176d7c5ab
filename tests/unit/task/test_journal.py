"""The journal keeps its word: what was written is there after the process that wrote it is gone."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from miner.task.errors import ConfigError, MachineFault
from miner.task.journal import DAY, Journal
from miner.task.stages import Job, Lease, Outcome, OutputFile, PresignedPut, Prompt, Rendered, TemporaryS3, Uploaded

ME = "0x0000000000000000000000000000000000000001"

LEASE = Lease(
    task_id="task-1",
    task_type="upscaler",
    workflow_id="4",
    parameters={"image": "https://example.org/a.png", "odd": ["\ud800", 1, None]},
    target=PresignedPut(url="https://store.example/out?signature=very-secret", headers={"x-a": "b"}),
    timeout_seconds=60.0,
    leased_at=1000.0,
)
JOB = Job(
    lease=LEASE, workflow="upscaler", values={"seed": 1, "x": 0.5, "on": True}, images={"image": "u"}, deadline=9.0
)
PROMPT = Prompt(job=JOB, prompt_id="p-1", graph={"1": {"class_type": "A", "inputs": {}}})
RENDERED = Rendered(
    job=JOB,
    prompt_id="p-1",
    files=(OutputFile(filename="a.png", subfolder="x", kind="output"),),
    inference_latency=1.5,
)
UPLOADED = Uploaded(job=JOB, key="out", size=7, inference_latency=1.5, upload_latency=0.5)
OUTCOME = Outcome(task_id="task-1", success=True, result="out", inference_latency=1.5, upload_latency=0.5)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def walk(journal: Journal):
    """Write each step in its order; yields after each."""
    journal.leased(ME, LEASE)
    yield "leased", {"lease": LEASE}
    journal.prepared(ME, JOB)
    yield "prepared", {"lease": LEASE, "job": JOB}
    journal.prompted(ME, PROMPT)
    yield "prompted", {"job": JOB, "prompt_id": "p-1"}
    journal.rendered(ME, RENDERED)
    yield "rendered", {"job": JOB, "rendered": RENDERED}
    journal.uploaded(ME, UPLOADED)
    yield "uploaded", {"job": JOB, "uploaded": UPLOADED}
    journal.answered(ME, OUTCOME)
    yield "answered", {"outcome": OUTCOME, "workflow": "upscaler"}


def test_each_step_is_read_back_as_it_was_written(journal):
    for step, expected in walk(journal):
        (entry,) = journal.unfinished(ME)
        assert entry.step == step
        assert {name: getattr(entry, name) for name in expected} == expected


def test_a_closed_task_owes_nothing_and_keeps_no_secret(tmp_path):
    journal = Journal(tmp_path)
    for _ in walk(journal):
        pass
    journal.closed(ME, "task-1", "acknowledged")
    assert journal.unfinished(ME) == []
    entry = journal.get(ME, "task-1")
    assert entry is not None
    assert (entry.outcome, entry.verdict, entry.step) == (OUTCOME, "acknowledged", None)
    journal.close()
    assert b"very-secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_temporary_credentials_survive(journal):
    target = TemporaryS3(access_key_id="a", secret_access_key="b", session_token="c")
    lease = replace(LEASE, target=target)
    journal.leased(ME, lease)
    assert journal.unfinished(ME)[0].lease == lease


def test_tasks_of_another_miner_id_are_not_ours(journal):
    journal.leased(ME, LEASE)
    assert journal.unfinished(ME + "-other") == []


def test_an_answer_for_a_task_that_was_never_leased_here_is_kept(journal):
    journal.answered(ME, Outcome(task_id="stranger", success=False, msg="lost"))
    (entry,) = journal.unfinished(ME)
    assert (entry.step, entry.lease, entry.outcome.msg) == ("answered", None, "lost")


def test_what_was_written_survives_sigkill(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
import sys; sys.path.insert(0, {str(Path.cwd())!r})
from tests.unit.task.test_journal import ME, LEASE
from miner.task.journal import Journal
Journal(Path({str(tmp_path)!r})).leased(ME, LEASE)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    journal = Journal(tmp_path)
    assert journal.unfinished(ME)[0].lease == LEASE
    journal.close()


@pytest.mark.usefixtures("journal")
def test_two_miners_never_share_one(tmp_path):
    with pytest.raises(ConfigError, match="another xalora-miner is using it"):
        Journal(tmp_path)


def test_only_its_owner_can_read_it(journal, tmp_path):
    journal.leased(ME, LEASE)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b""], ids=["garbage", "emptied"])
def test_a_damaged_one_is_moved_aside_and_the_miner_starts(tmp_path, damage):
    first = Journal(tmp_path)
    first.leased(ME, LEASE)
    first.close()
    (tmp_path / "journal.db").write_bytes(damage)
    journal = Journal(tmp_path)
    journal.leased(ME, LEASE)
    assert [entry.task_id for entry in journal.unfinished(ME)] == ["task-1"]
    journal.close()
    assert bool(damage) == bool(list(tmp_path.glob("journal.damaged-*.db")))


def test_one_cut_off_in_the_middle_is_moved_aside(tmp_path):
    first = Journal(tmp_path)
    for number in range(200):
        first.leased(ME, replace(LEASE, task_id=f"t{number}"))
    first.close()
    path = tmp_path / "journal.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    Journal(tmp_path).close()
    assert list(tmp_path.glob("journal.damaged-*.db"))


def test_one_of_a_newer_program_is_refused_and_left_alone(tmp_path):
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer xalora-miner"):
        Journal(tmp_path)
    assert not list(tmp_path.glob("journal.damaged-*.db"))


def test_old_tasks_are_forgotten_and_open_ones_never(tmp_path):
    now = [0.0]
    journal = Journal(tmp_path, clock=lambda: now[0])
    for task_id in ("old", "new", "open"):
        journal.leased(ME, replace(LEASE, task_id=task_id))
    journal.closed(ME, "old", "acknowledged")
    now[0] = 8 * DAY
    journal.closed(ME, "new", "acknowledged")
    assert journal.prune(keep_days=7) == 1
    assert journal.get(ME, "old") is None
    assert journal.get(ME, "new") is not None
    assert [entry.task_id for entry in journal.unfinished(ME)] == ["open"]
    journal.close()


def test_a_full_disk_is_a_fault_of_the_machine(tmp_path):
    journal = Journal(tmp_path)
    journal._db.execute("PRAGMA max_page_count = 8")  # what SQLite does when the disk is full: SQLITE_FULL

    def fill():
        for number in range(1000):
            journal.leased(ME, replace(LEASE, task_id=f"t{number}"))

    with pytest.raises(MachineFault, match="full"):
        fill()
    journal.close()
