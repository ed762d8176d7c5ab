"""The acknowledgement and what another thread's request says at the same time: one answer, and no task twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from miner.sequencer import Sequencer
from miner.sequencer.outbox import Outbox
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Answered, Closed, Leased, Outcome
from miner.worker.lane.answers import Answers
from miner.worker.lane.gate import Gate
from miner.worker.lane.shutdown import Shutdown
from tests.support.script import a_task
from tests.support.scripted_server import Request, ScriptedServer, reply
from tests.support.testbed import MINER_ID

RUNNING = reply({"task_id": "t", "msg": "running"})


@dataclass
class Sides:
    """A gate and what it stands on, and the sequencer's side: `says`, once `go` is set."""

    ledger: Ledger
    answers: Answers
    gate: Gate
    server: ScriptedServer
    says: bytes = b""
    status: int = 200  # of a submission
    asked: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def request(self, _: Request) -> Any:
        self.asked.set()
        return [self.go, self.says]

    def submission(self, _: Request) -> bytes:
        return reply({"message": "ok"}, status=self.status)

    @property
    def submitted(self) -> list[Any]:
        return [request.json() for request in self.server.asked("/miner_submit")]


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    with ExitStack() as stack:
        server = stack.enter_context(ScriptedServer())
        journal = stack.enter_context(closing(Journal(tmp_path)))
        sequencer = stack.enter_context(closing(Sequencer(server.url)))
        outbox = Outbox(sequencer)
        ledger = Ledger(miner_id=MINER_ID, journal=journal, folder=tmp_path / "lane")
        answers = Answers(ledger=ledger, outbox=outbox)
        gate = Gate(
            sequencer=sequencer, ledger=ledger, journal=journal, answers=answers, shutdown=Shutdown(), prefetch=1
        )
        sides = Sides(ledger=ledger, answers=answers, gate=gate, server=server)
        server.serve(sides.request, "/miner_request")
        server.serve(sides.submission, "/miner_submit")
        yield sides


def take(sides: Sides) -> None:
    """A task comes in hand."""
    sides.says = a_task("t")
    sides.go.set()
    sides.gate.ask(["4"])
    sides.go.clear()
    sides.asked.clear()


@pytest.mark.parametrize("says", [a_task("t"), RUNNING], ids=["leased", "running"])
def test_a_reply_to_a_request_from_before_the_acknowledgement_changes_nothing(sides: Sides, says: bytes) -> None:
    take(sides)
    sides.says = says
    other = threading.Thread(target=sides.gate.ask, args=(["4"],))
    other.start()
    assert sides.asked.wait(30)
    sides.answers.fail("t", "no")  # acknowledged while the request is under way
    sides.go.set()
    other.join(30)
    assert sides.ledger.view() == ()
    assert len(sides.submitted) == 1


def test_a_lease_of_the_same_task_after_the_acknowledgement_is_a_new_one(sides: Sides) -> None:
    take(sides)
    sides.answers.fail("t", "no")
    take(sides)
    (task,) = sides.ledger.view()
    assert task.stage == Leased()


def test_a_lease_after_a_refused_answer_is_worked_on(sides: Sides) -> None:
    """The sequencer gave the task to this miner anew, and the answer came from before that."""
    take(sides)
    sides.says, sides.status = a_task("t"), 400
    other = threading.Thread(target=sides.gate.ask, args=(["4"],))
    other.start()
    assert sides.asked.wait(30)
    sides.answers.fail("t", "no")
    sides.go.set()
    other.join(30)
    assert [task.stage for task in sides.ledger.view()] == [Leased()]


def test_a_task_that_ends_while_its_second_lease_arrives_ends(sides: Sides) -> None:
    take(sides)
    (lease,) = (task.lease for task in sides.ledger.view())
    sides.answers.lost("t")
    sides.ledger.lease_again(lease)
    assert sides.ledger.view() == ()


def test_an_answer_to_a_task_that_is_named_again_at_once_is_submitted(sides: Sides) -> None:
    """Its first letter must be out of the way when the second one comes."""
    take(sides)
    outcome = Outcome(task_id="t", success=False, msg="no")
    sides.ledger.advance("t", Answered(outcome=outcome))
    sides.says = RUNNING
    sides.go.set()
    again = threading.Thread(target=sides.gate.ask, args=((),))
    named = threading.Event()

    def close_and_hear_of_it(task_id: str, verdict: str) -> None:
        sides.ledger.advance(task_id, Closed(verdict=verdict))
        again.start()
        named.set()
        again.join(0.2)

    outbox = sides.answers.outbox
    outbox.start()  # submits again what a broken connection kept away
    outbox.submit(MINER_ID, outcome, close_and_hear_of_it)
    assert named.wait(30)
    again.join(30)
    outbox.stop()
    assert sides.ledger.view() == ()
    assert len(sides.submitted) == 2
