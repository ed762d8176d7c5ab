"""How many tasks a lane holds: it learns the sequencer's limit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from tests.support import flows
from tests.support.testbed import Testbed, until


def start(testbed: Testbed, leases: int) -> None:
    testbed.start_devnet("--leases", str(leases))
    testbed.add_workflow("gated", flows.wait(3600.0, until="gate"))
    testbed.start_worker(testbed.start_engine(), workflows={"4": ["gated"]}, sequencer__poll_interval=0.01)


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
