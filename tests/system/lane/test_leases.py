"""How many tasks a lane holds: it learns the sequencer's limit."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from miner.sequencer import Sequencer
from miner.sequencer.outbox import Outbox
from miner.task.errors import Retryable
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.worker.lane.answers import Answers
from miner.worker.lane.gate import LOST_REPLY, Gate
from miner.worker.lane.shutdown import Shutdown
from tests.support import flows
from tests.support.script import a_task
from tests.support.scripted_server import Request, ScriptedServer, reply
from tests.support.testbed import MINER_ID, Testbed, until


def start(testbed: Testbed, leases: int, **settings: Any) -> None:
    testbed.start_devnet("--leases", str(leases))
    testbed.add_workflow("gated", flows.wait(3600.0, until="gate"))
    testbed.start_worker(testbed.start_engine(), workflows={"4": ["gated"]}, sequencer__poll_interval=0.01, **settings)


def open_gate(testbed: Testbed) -> None:
    (testbed.folder / "engine" / "input" / "gate").touch()


def held(testbed: Testbed) -> int:
    return int(testbed.devnet.stats()["leases"]["open"])


def asked(testbed: Testbed) -> list[dict[str, Any]]:
    return testbed.devnet.requests("miner_request")


def test_two_tasks_are_held_if_the_sequencer_leases_two(testbed: Testbed) -> None:
    start(testbed, leases=2)
    tasks = [testbed.create(parameters={}) for _ in range(4)]
    until(lambda: held(testbed) == 2, why="the second lease")
    open_gate(testbed)
    assert [task["status"] for task in testbed.ended(*tasks)] == ["finished"] * 4


def test_with_a_limit_of_one_only_heartbeats_are_sent_while_it_is_held(testbed: Testbed) -> None:
    start(testbed, leases=1)
    tasks = [testbed.create(parameters={}) for _ in range(2)]
    until(lambda: held(testbed) == 1, why="the lease")
    before = len(asked(testbed))
    until(lambda: len(asked(testbed)) >= before + 5, why="heartbeats")
    gaps = [late["at"] - early["at"] for early, late in pairwise(asked(testbed)[before + 1 :])]
    assert min(gaps) > 0.3  # heartbeat is 0.5 s, poll_interval 0.01 s
    open_gate(testbed)
    assert [task["status"] for task in testbed.ended(*tasks)] == ["finished"] * 2


def test_a_heartbeat_leases_a_second_task_that_comes_later(testbed: Testbed) -> None:
    """While there was no second one, the sequencer's `running` looked like a limit."""
    start(testbed, leases=2)
    first = testbed.create(parameters={})
    until(lambda: held(testbed) == 1, why="the lease")
    before = len(asked(testbed))
    until(lambda: len(asked(testbed)) >= before + 2, why="`running`")
    second = testbed.create(parameters={})
    until(lambda: held(testbed) == 2, why="the second lease")
    open_gate(testbed)
    assert [task["status"] for task in testbed.ended(first, second)] == ["finished"] * 2


def test_without_prefetch_one_task_is_held_at_a_time(testbed: Testbed) -> None:
    """Although the sequencer's `running` looks like a limit of one while there is no second task."""
    start(testbed, leases=2, miner__prefetch=0)
    first = testbed.create(parameters={})
    until(lambda: held(testbed) == 1, why="the lease")
    before = len(asked(testbed))
    until(lambda: len(asked(testbed)) >= before + 2, why="`running`")
    second = testbed.create(parameters={})
    before = len(asked(testbed))
    until(lambda: len(asked(testbed)) >= before + 4, why="heartbeats")
    assert held(testbed) == 1
    open_gate(testbed)
    assert [task["status"] for task in testbed.ended(first, second)] == ["finished"] * 2


def test_two_requests_at_once_lease_no_more_than_the_limit(tmp_path: Path) -> None:
    """The second waits for the first, and finds a task in hand."""
    asked, go = threading.Event(), threading.Event()

    def answer(_: Request) -> Any:
        asked.set()
        return [go, a_task("t")]

    with (
        ScriptedServer(answer) as server,
        closing(Sequencer(server.url)) as sequencer,
        closing(Journal(tmp_path)) as journal,
    ):
        ledger = Ledger(miner_id=MINER_ID, journal=journal, folder=tmp_path / "lane")
        answers = Answers(ledger=ledger, outbox=Outbox(sequencer))
        gate = Gate(
            sequencer=sequencer, ledger=ledger, journal=journal, answers=answers, shutdown=Shutdown(), prefetch=0
        )
        threads = [threading.Thread(target=gate.ask, args=(["4"],)) for _ in range(2)]
        threads[0].start()
        assert asked.wait(30)
        threads[1].start()
        go.set()
        for thread in threads:
            thread.join(30)
        assert [request.json()["workflow_ids"] for request in server.requests] == [["4"], []]


def test_a_task_is_not_lost_while_the_sequencer_names_one_that_is_answered(tmp_path: Path) -> None:
    """Its answer is on its way, and says nothing of the other."""
    said = iter([a_task("a"), a_task("b"), *[reply({"task_id": "a", "msg": "running"})] * 6])

    def answer(request: Request) -> Any:
        return reply({}, status=500) if request.path == "/miner_submit" else next(said)

    with (
        ScriptedServer(answer) as server,
        closing(Sequencer(server.url)) as sequencer,
        closing(Journal(tmp_path)) as journal,
    ):
        ledger = Ledger(miner_id=MINER_ID, journal=journal, folder=tmp_path / "lane")
        answers = Answers(ledger=ledger, outbox=Outbox(sequencer))
        gate = Gate(
            sequencer=sequencer, ledger=ledger, journal=journal, answers=answers, shutdown=Shutdown(), prefetch=1
        )
        for _ in range(3):
            gate.ask(["4"])
        answers.fail("a", "it failed")
        for _ in range(5):
            gate.ask(["4"])
        assert not ledger.get("b").taken_away


def test_a_task_whose_lease_was_lost_on_the_way_is_not_said_to_be_lost_in_a_restart(tmp_path: Path) -> None:
    asked = []

    def answer(request: Request) -> Any:
        asked.append(request)
        if request.path == "/miner_submit":
            return reply({})
        return None if len(asked) == 1 else reply({"task_id": "t", "msg": "the task is already running"})

    with (
        ScriptedServer(answer) as server,
        closing(Sequencer(server.url)) as sequencer,
        closing(Journal(tmp_path)) as journal,
    ):
        ledger = Ledger(miner_id=MINER_ID, journal=journal, folder=tmp_path / "lane")
        answers = Answers(ledger=ledger, outbox=Outbox(sequencer))
        gate = Gate(
            sequencer=sequencer, ledger=ledger, journal=journal, answers=answers, shutdown=Shutdown(), prefetch=0
        )
        with pytest.raises(Retryable):
            gate.ask(["4"])
        gate.ask(["4"])
        (told,) = server.asked("/miner_submit")
    assert told.json()["msg"] == LOST_REPLY


def test_a_raised_limit_is_detected(testbed: Testbed) -> None:
    start(testbed, leases=1)
    tasks = [testbed.create(parameters={}) for _ in range(2)]
    until(lambda: held(testbed) == 1, why="the lease")
    before = len(asked(testbed))
    until(lambda: len(asked(testbed)) >= before + 2, why="`running`")
    testbed.devnet_process.stop()
    testbed.start_devnet("--leases", "2", port=urlsplit(testbed.devnet.url).port)
    until(lambda: held(testbed) == 2, why="the second lease")
    open_gate(testbed)
    assert [task["status"] for task in testbed.ended(*tasks)] == ["finished"] * 2


def test_a_workflow_without_an_id_is_reported(testbed: Testbed) -> None:
    testbed.start_devnet()
    testbed.start_worker(testbed.start_engine(), workflows={"9": ["upscaler"]}, workflows__enabled=["upscaler-lanczos"])
    reason = "no workflow id maps to a runnable workflow; see [workflows] ids"
    until(lambda: testbed.logged("not_leasing", reason=reason), why="the reason")
