"""The history: what the journal keeps of finished tasks, without secrets."""

from __future__ import annotations

import sqlite3

import pytest

from miner.dashboard.history import History, Totals
from miner.task.errors import MachineFault
from miner.task.journal import DAY, Journal
from miner.task.ledger import Ledger
from miner.task.stages import Answered, Closed, Facts, Job, Lease, Outcome, Places, Prepared, PresignedPut, Prompted

ME = "0x0000000000000000000000000000000000000001"
FACTS = Facts(prepare=0.5, queue=0.1, render=4.0, deliver=0.4, total=5.0, size=1234)
REFUSED = Facts(prepare=None, queue=None, render=None, deliver=None, total=0.01)


class Clock:
    at = 1_000_000.0

    def __call__(self):
        self.at += 1.0
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(tmp_path, clock):
    journal = Journal(tmp_path, clock=clock)
    yield journal
    journal.close()


@pytest.fixture
def history(tmp_path, journal):  # noqa: ARG001  # the journal makes the file
    history = History(tmp_path)
    yield history
    history.close()


@pytest.fixture
def ledger(journal, clock, tmp_path):
    return Ledger(miner_id=ME, journal=journal, folder=tmp_path, clock=clock)


def lease(ledger, clock, task_id):
    ledger.take(
        Lease(
            task_id=task_id,
            task_type="txt2img",
            workflow_id="3",
            parameters={"prompt": "a very private wish"},
            target=PresignedPut(url="https://store.example/out?signature=very-secret"),
            timeout_seconds=60.0,
            leased_at=clock(),
        )
    )


def prompt(ledger, clock, task_id, workflow="flux-lora"):
    lease(ledger, clock, task_id)
    job = Job(workflow=workflow, values={"prompt": "a very private wish"}, images={}, deadline=9e9)
    ledger.advance(task_id, Prepared(job=job, prompt_id=f"p-{task_id}"))
    ledger.advance(task_id, Prompted(job=job, prompt_id=f"p-{task_id}"))


def end(ledger, task_id, *, msg="", facts=FACTS):
    ledger.advance(task_id, Answered(outcome=Outcome(task_id=task_id, success=not msg, msg=msg), facts=facts))
    ledger.advance(task_id, Closed(verdict="acknowledged"))


@pytest.fixture
def four(journal, ledger, clock):
    """One task of each outcome, oldest first."""
    prompt(ledger, clock, "done")
    end(ledger, "done")
    journal.record_thumbnail(ME, "done", width=680, height=1024, thumbnail=b"RIFFsmall")
    lease(ledger, clock, "refused")
    end(ledger, "refused", msg="width is too large", facts=REFUSED)
    prompt(ledger, clock, "failed", workflow="mochi-fp8")
    end(ledger, "failed", msg="rendering failed", facts=REFUSED)
    prompt(ledger, clock, "lost", workflow="mochi-fp8")
    ledger.advance("lost", Closed(verdict="taken away"))


@pytest.mark.usefixtures("four")
class TestFinishedTasks:
    def test_are_latest_first_with_outcome_and_reason(self, history):
        told = [(past.task_id, past.outcome, past.reason) for past in history.last(limit=10)]
        assert told == [
            ("lost", "lost", "canceled or expired, according to the sequencer"),
            ("failed", "failed", "rendering failed"),
            ("refused", "refused", "width is too large"),
            ("done", "done", ""),
        ]

    def test_have_seconds_size_and_thumbnail(self, history):
        (past,) = history.last(limit=1, outcome="done")
        assert past.seconds == {"prepare": 0.5, "queue": 0.1, "render": 4.0, "deliver": 0.4, "total": 5.0}
        assert (past.size, past.pixels, past.pictured) == (1234, (680, 1024), True)
        assert history.thumbnail(ME, "done") == b"RIFFsmall"
        assert history.thumbnail(ME, "failed") is None

    @pytest.mark.parametrize("outcome", ["done", "refused", "failed", "lost"])
    def test_are_filtered_by_outcome(self, history, outcome):
        assert [past.task_id for past in history.last(limit=10, outcome=outcome)] == [outcome]

    def test_are_filtered_by_workflow_and_continue_after_a_page(self, history):
        assert [past.task_id for past in history.last(limit=10, workflow="mochi-fp8")] == ["lost", "failed"]
        first = history.last(limit=2)
        assert [past.task_id for past in history.last(limit=2, before=first[-1].ended_at)] == ["refused", "done"]

    def test_contain_no_task_parameters(self, history, tmp_path):
        assert "private" not in repr(history.last(limit=10))
        with sqlite3.connect(tmp_path / "journal.db") as db:
            kept = list(db.iterdump())
        db.close()
        assert not [line for line in kept if "private" in line or "secret" in line]

    def test_are_totaled_over_a_period(self, history, clock):
        assert history.totals(since=clock.at - DAY) == Totals(done=1, refused=1, failed=1, lost=1, render_seconds=4.0)
        assert history.totals(since=clock.at + 1).done == 0


def test_a_failure_stays_one_after_its_files_are_deleted_before_the_acknowledgement(ledger, clock, history):
    prompt(ledger, clock, "failed")
    outcome = Outcome(task_id="failed", success=False, msg="rendering failed")
    ledger.advance("failed", Answered(outcome=outcome, facts=FACTS))
    ledger.cleaned({"failed": Places()})
    ledger.advance("failed", Closed(verdict="acknowledged"))
    assert [task.outcome for task in history.last(limit=1)] == ["failed"]


def test_usual_seconds_are_the_average_of_the_latest_successes(journal, ledger, clock):
    assert journal.usual_seconds("flux-lora") is None
    for number in range(25):
        prompt(ledger, clock, f"t{number}")
        end(ledger, f"t{number}", facts=Facts(render=100.0 if number < 5 else 2.0, total=1.0))
    assert journal.usual_seconds("flux-lora") == 2.0


def test_a_thumbnail_is_deleted_with_its_task(journal, ledger, clock, history):
    prompt(ledger, clock, "old")
    end(ledger, "old")
    journal.record_thumbnail(ME, "old", width=1, height=1, thumbnail=b"x")
    clock.at += 8 * DAY
    assert journal.prune(keep_days=7) == 1
    assert history.thumbnail(ME, "old") is None


def test_a_finished_task_changes_the_news_number(journal, ledger, clock):
    news = journal.news
    prompt(ledger, clock, "new")
    assert journal.news == news
    end(ledger, "new")
    assert journal.news > news


def test_a_journal_of_schema_1_is_migrated(tmp_path, clock):
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.executescript(
            """CREATE TABLE tasks (task_id TEXT NOT NULL, miner_id TEXT NOT NULL, step TEXT NOT NULL,
            workflow TEXT NOT NULL DEFAULT '', prompt_id TEXT NOT NULL DEFAULT '', record TEXT, outcome TEXT,
            verdict TEXT NOT NULL DEFAULT '', leased_at REAL NOT NULL, ended_at REAL,
            PRIMARY KEY (task_id, miner_id)) WITHOUT ROWID;
            INSERT INTO tasks VALUES ('t', 'm', 'closed', 'w', 'p', NULL, '{"success": true}', 'acknowledged', 1, 2);
            PRAGMA user_version = 1"""
        )
    db.close()
    journal, history = Journal(tmp_path, clock=clock), History(tmp_path)
    (past,) = history.last(limit=1)
    assert (past.outcome, past.task_type, past.seconds["total"], past.pixels) == ("done", "", None, None)
    history.close()
    journal.close()


def test_an_unreadable_journal_is_a_machine_fault(tmp_path):
    with pytest.raises(MachineFault, match="journal"):
        History(tmp_path).last(limit=1)
