"""The ledger: every stage with every event, and against a model."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from miner.task import policy
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import NEXT, Answered, Closed, Leased, Places, Prepared, Prompted, Stage, TemporaryS3
from tests.support.sample_tasks import JOB, LEASE, ME, OUTCOME, WAY
from tests.support.testbed import until

STAGES = (*WAY, Closed(verdict="acknowledged"))
OTHER_PLACE = replace(LEASE, target=TemporaryS3(access_key_id="a", secret_access_key="b", session_token="c"))


@pytest.fixture
def journal(tmp_path):
    with closing(Journal(tmp_path)) as journal:
        yield journal


@pytest.fixture
def cleaned():
    return []


@pytest.fixture
def ledger(journal, tmp_path, cleaned):
    return Ledger(miner_id=ME, journal=journal, folder=tmp_path / "lane", cleaner=cleaned.append)


def bring(ledger: Ledger, stage: Stage) -> None:
    """Take a task and advance it to `stage`."""
    ledger.take(LEASE)
    for one in STAGES[1 : STAGES.index(stage) + 1]:
        ledger.advance("task-1", one)


# ---- stage x event ----------------------------------------------------------------------------------------------


def test_the_table_covers_every_stage():
    assert {type(stage) for stage in STAGES} == set(get_args(Stage))
    assert set(NEXT) == {stage.name for stage in STAGES}


@pytest.mark.parametrize("stage", WAY, ids=lambda stage: stage.name)
@pytest.mark.parametrize("following", STAGES, ids=lambda stage: f"then_{stage.name}")
def test_a_task_advances_only_as_the_table_allows(ledger, journal, stage, following):
    bring(ledger, stage)
    if following.name not in NEXT[stage.name]:
        with pytest.raises(ValueError, match="cannot go from"):
            ledger.advance("task-1", following)
        assert ledger.get("task-1").stage == stage
        return
    task = ledger.advance("task-1", following)
    assert task.stage == following
    if isinstance(following, Closed):
        assert (ledger.view(), journal.unfinished(ME)) == ((), [])
    else:
        assert ledger.view() == (task,)
        assert journal.unfinished(ME)[0].stage == following


def taken_away(ledger):
    ledger.apply_reply(ledger.view(), named=None, canceled=("task-1",))


def leased_again(ledger):
    ledger.lease_again(OTHER_PLACE)


def named(ledger):
    ledger.apply_reply(ledger.view(), named="task-1", canceled=())


def another_named(ledger):
    ledger.apply_reply(ledger.view(), named="task-2", canceled=())


EVENTS = {
    taken_away: lambda task: task.taken_away,
    leased_again: lambda task: task.lease.target == OTHER_PLACE.target and task.lease.leased_at == LEASE.leased_at,
    named: lambda task: task.hold.named and not task.taken_away,
    another_named: lambda task: not task.taken_away,  # never named, so naming another does not count
}
NO_EFFECT_ONCE_ANSWERED = {taken_away, leased_again, named}


@pytest.mark.parametrize("stage", WAY, ids=lambda stage: stage.name)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_replies_change_no_stage(ledger, stage, event):
    bring(ledger, stage)
    before = ledger.get("task-1")
    event(ledger)
    after = ledger.get("task-1")
    assert after.stage == stage
    if isinstance(stage, Answered) and event in NO_EFFECT_ONCE_ANSWERED:
        assert after == before
    else:
        assert EVENTS[event](after)


@pytest.mark.parametrize("stage", WAY, ids=lambda stage: stage.name)
def test_every_stage_survives_a_restart(tmp_path, stage):
    for run in range(2):
        with closing(Journal(tmp_path)) as journal:
            ledger = Ledger(miner_id=ME, journal=journal, folder=tmp_path)
            if run == 0:
                bring(ledger, stage)
                before = ledger.get("task-1")
            else:
                (left,) = journal.unfinished(ME)
                after = ledger.restore(left)
    assert (after.stage, after.attempts, after.places) == (before.stage, before.attempts, before.places)
    assert (after.lease.task_id, after.workflow) == (before.lease.task_id, before.workflow)


@pytest.mark.parametrize("stage", WAY, ids=lambda stage: stage.name)
@pytest.mark.parametrize("ending", [Answered(outcome=OUTCOME), Closed(verdict="taken away")], ids=lambda e: e.name)
def test_the_cleaner_gets_every_place_once(ledger, cleaned, stage, ending):
    bring(ledger, stage)
    if not isinstance(stage, Answered):
        ledger.advance("task-1", ending)
    if not isinstance(ending, Closed):
        ledger.advance("task-1", Closed(verdict="acknowledged"))
    (task,) = cleaned
    prompted = Places(prompts=("p-1",), folders=(str(ledger.folder / "p-1"),), inputs=("image",))
    rendered = replace(prompted, files=WAY[3].files, ended=("p-1",))
    assert task.places == (Places() if stage == WAY[0] else prompted if stage in WAY[:3] else rendered)
    assert task.lease == LEASE  # with its strings, to find them in ComfyUI's log


def test_an_answered_task_has_no_secret_in_memory(ledger):
    bring(ledger, WAY[-1])
    (task,) = ledger.view()
    assert list(task.lease.strings()) == [""]


def test_two_renders_make_two_places_and_two_attempts(ledger):
    bring(ledger, WAY[2])
    ledger.advance("task-1", Prepared(job=JOB, prompt_id="p-2"))
    task = ledger.advance("task-1", Prompted(job=JOB, prompt_id="p-2"))
    assert (task.places.prompts, task.attempts) == (("p-1", "p-2"), 2)


def test_a_task_to_be_rendered_again_counts_as_not_rendered(ledger):
    bring(ledger, WAY[3])
    assert ledger.get("task-1").rendered_at
    task = ledger.advance("task-1", Prepared(job=JOB, prompt_id="p-2"))
    assert (task.rendered_at, task.rendered_in, task.queued_at) == (0.0, 0.0, 0.0)


# ---- waiting, and disk faults -----------------------------------------------------------------------------------


def test_first_returns_the_first_task_at_a_stage_and_a_prompt_once_queued(ledger):
    bring(ledger, WAY[2])
    assert ledger.first(Prompted) is None
    ledger.note("task-1", queued_at=1.0)
    assert ledger.first(Prompted).task_id == "task-1"
    ledger.take(replace(LEASE, task_id="task-2"))
    assert ledger.first(Prepared, Leased).task_id == "task-2"


def test_a_stage_wakes_waiters_and_a_note_does_not(ledger):
    bring(ledger, WAY[0])
    version = ledger.version
    ledger.note("task-1", seed=1)
    assert ledger.version == version
    waiting = threading.Thread(target=lambda: ledger.wait(60.0, since=version))
    waiting.start()
    ledger.advance("task-1", WAY[1])
    waiting.join(10.0)
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ("before", "change", "wakes"),
    [
        (0, lambda ledger: ledger.advance("task-1", WAY[1]), False),
        (1, lambda ledger: ledger.advance("task-1", WAY[2]), False),  # ComfyUI does not have it yet
        (2, lambda ledger: ledger.note("task-1", queued_at=1.0), True),
        (3, lambda ledger: ledger.advance("task-1", WAY[4]), False),
        (4, lambda ledger: ledger.advance("task-1", WAY[5]), True),
        (3, lambda ledger: ledger.leave("task-1"), True),
        (3, Ledger.wake, True),
        (3, Ledger.end, True),
    ],
)
def test_a_wait_for_stages_sleeps_through_the_others(ledger, before, change, wakes):
    bring(ledger, WAY[before])
    stages = (Prompted, Answered)
    waiting = threading.Thread(target=lambda: ledger.wait(60.0, *stages, since=ledger.version))
    waiting.start()
    until(lambda: stages in ledger._waits and ledger._waits[stages]._waiters, why="it sleeps")
    change(ledger)
    assert bool(ledger._waits[stages]._waiters) is not wakes
    ledger.end()
    waiting.join(10.0)
    assert not waiting.is_alive()


def test_a_disk_fault_stops_no_task_and_closed_ones_are_written_later(ledger, journal):
    ledger.take(replace(LEASE, task_id="task-0"))
    bring(ledger, WAY[-1])
    journal._db.execute("PRAGMA query_only = ON")
    ledger.advance("task-1", Closed(verdict="acknowledged"))
    assert ledger.get("task-1") is None
    assert len(journal.unfinished(ME)) == 2
    ledger.write_again()
    assert len(journal.unfinished(ME)) == 2
    journal._db.execute("PRAGMA query_only = OFF")
    ledger.write_again()
    assert [left.task_id for left in journal.unfinished(ME)] == ["task-0"]
    assert journal.known(ME, "task-1").verdict == "acknowledged"


# ---- against a model --------------------------------------------------------------------------------------------


MEMORY = "/dev/shm"  # the model writes thousands of records, and no power cut is tried on it


class Model(RuleBasedStateMachine):
    """Leases, losses, kills and restarts, in any order.

    The model: each task that was taken ends once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        self.owed: set[str] = set()
        self.ended: set[str] = set()
        self.crashes: dict[str, int] = {}
        self.handed: set[str] = set()
        self.numbers = iter(range(10**6))
        self._open()

    def _open(self) -> None:
        path = Path(self.folder.name)
        self.journal = Journal(path)
        self.ledger = Ledger(
            miner_id=ME,
            journal=self.journal,
            folder=path,
            cleaner=lambda task: self.handed.add(task.task_id),
        )
        for left in self.journal.unfinished(ME):
            assert left.crashes == self.crashes.get(left.task_id, 0)
            if policy.after_restart(left, now=0.0) == "crashed":
                outcome = replace(OUTCOME, task_id=left.task_id, success=False)
                self.ledger.restore(left, then=Answered(outcome=outcome))
            else:
                self.ledger.restore(left)

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()

    # ---- events

    @rule()
    def lease(self) -> None:
        task_id = f"t{next(self.numbers)}"
        self.ledger.take(replace(LEASE, task_id=task_id))
        self.owed.add(task_id)

    @precondition(lambda self: self.ledger.view())
    @rule(data=strategies.data())
    def go_on(self, data: strategies.DataObject) -> None:
        task = data.draw(strategies.sampled_from(self.ledger.view()))
        following = data.draw(strategies.sampled_from(sorted(NEXT[task.stage.name])))
        stage = next(one for one in STAGES if one.name == following)
        if isinstance(stage, Prepared):
            stage = replace(stage, prompt_id=f"p{next(self.numbers)}")
        elif isinstance(stage, Answered):
            stage = Answered(outcome=replace(OUTCOME, task_id=task.task_id))
        self.ledger.advance(task.task_id, stage)
        if isinstance(stage, Closed):
            self.owed.discard(task.task_id)
            self.ended.add(task.task_id)

    @precondition(lambda self: self.ledger.view())
    @rule(data=strategies.data(), canceled=strategies.booleans())
    def reply(self, data: strategies.DataObject, canceled: bool) -> None:
        task = data.draw(strategies.sampled_from(self.ledger.view()))
        about = [one for one in self.ledger.view() if not one.answered]
        self.ledger.apply_reply(about, named=task.task_id, canceled=(task.task_id,) if canceled else ())

    @rule()
    def kill_and_restart(self) -> None:
        """As after SIGKILL: without `close`."""
        for task in self.ledger.view():
            if not task.answered:
                self.crashes[task.task_id] = self.crashes.get(task.task_id, 0) + 1
        since = self.journal._db.execute("SELECT since FROM running").fetchone()
        self.journal.close()
        with sqlite3.connect(Path(self.folder.name) / "journal.db") as db:
            db.execute("INSERT INTO running VALUES (?)", since)
        db.close()
        self._open()

    @rule()
    def stop_and_restart(self) -> None:
        self.journal.close()
        self._open()

    # ---- invariants

    @invariant()
    def every_open_task_is_in_the_ledger_and_in_the_journal(self) -> None:
        assert {task.task_id for task in self.ledger.view()} == self.owed
        assert {left.task_id for left in self.journal.unfinished(ME)} == self.owed

    @invariant()
    def closed_tasks_stay_closed(self) -> None:
        assert not self.ended & self.owed

    @invariant()
    def ledger_and_journal_agree(self) -> None:
        for left in self.journal.unfinished(ME):
            task = self.ledger.get(left.task_id)
            if not isinstance(task.stage, Answered):
                assert (left.stage, left.attempts, left.places) == (task.stage, task.attempts, task.places)

    @invariant()
    def no_task_crashes_the_program_a_third_time(self) -> None:
        for task in self.ledger.view():
            if self.crashes.get(task.task_id, 0) >= policy.MAX_CRASHES:
                assert task.answered or isinstance(task.stage, type(WAY[4]))

    @invariant()
    def the_cleaner_has_every_finished_task(self) -> None:
        assert self.handed == self.ended | {task.task_id for task in self.ledger.view() if task.answered}


TestAgainstAModel = Model.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
