"""How many tasks a lane holds: as many as the sequencer lets it, which it has to find out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from tests.support.testbed import Rig, until
from tests.system.lane import flows


def start(rig: Rig, leases: int) -> None:
    rig.start_devnet("--leases", str(leases))
    rig.add_workflow("gated", flows.wait(3600.0, until="gate"))
    rig.start_worker(rig.start_engine("--test-nodes"), workflows={"4": ["gated"]}, sequencer__poll_interval=0.01)


def open_gate(rig: Rig) -> None:
    (rig.folder / "engine" / "input" / "gate").touch()


def held(rig: Rig) -> int:
    return int(rig.devnet.stats()["leases"]["open"])


def asked(rig: Rig) -> list[dict[str, Any]]:
    return rig.devnet.requests("miner_request")


def test_two_are_held_where_two_are_given(rig: Rig) -> None:
    start(rig, leases=2)
    tasks = [rig.create(parameters={}) for _ in range(4)]
    until(lambda: held(rig) == 2, why="the second lease")
    open_gate(rig)
    assert [task["status"] for task in rig.ended(*tasks)] == ["finished"] * 4


def test_where_one_is_given_only_heartbeats_are_sent_while_it_is_held(rig: Rig) -> None:
    start(rig, leases=1)
    tasks = [rig.create(parameters={}) for _ in range(2)]
    until(lambda: held(rig) == 1, why="the lease")
    before = len(asked(rig))
    until(lambda: len(asked(rig)) >= before + 5, why="heartbeats")
    gaps = [late["at"] - early["at"] for early, late in pairwise(asked(rig)[before + 1 :])]
    assert min(gaps) > 0.3  # heartbeat is 0.5 s, poll_interval 0.01 s
    open_gate(rig)
    assert [task["status"] for task in rig.ended(*tasks)] == ["finished"] * 2


def test_a_second_task_that_comes_later_is_taken_by_a_heartbeat(rig: Rig) -> None:
    """While there was no second one, the sequencer's `running` looked like a limit."""
    start(rig, leases=2)
    first = rig.create(parameters={})
    until(lambda: held(rig) == 1, why="the lease")
    before = len(asked(rig))
    until(lambda: len(asked(rig)) >= before + 2, why="`running`")
    second = rig.create(parameters={})
    until(lambda: held(rig) == 2, why="the second lease")
    open_gate(rig)
    assert [task["status"] for task in rig.ended(first, second)] == ["finished"] * 2


def test_a_sequencer_that_gives_more_than_before_is_found_out(rig: Rig) -> None:
    start(rig, leases=1)
    tasks = [rig.create(parameters={}) for _ in range(2)]
    until(lambda: held(rig) == 1, why="the lease")
    before = len(asked(rig))
    until(lambda: len(asked(rig)) >= before + 2, why="`running`")
    rig.devnet_process.stop()
    rig.start_devnet("--leases", "2", port=urlsplit(rig.devnet.url).port)
    until(lambda: held(rig) == 2, why="the second lease")
    open_gate(rig)
    assert [task["status"] for task in rig.ended(*tasks)] == ["finished"] * 2
