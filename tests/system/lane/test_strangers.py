"""A task that the sequencer says is running here, and that nobody here knows."""

from __future__ import annotations

from tests.support.testbed import MINER_ID, Testbed

LOST = "the miner lost this task in a restart before it could start; please create it again"


def lease_behind_its_back(testbed: Testbed) -> str:
    """A lease under the worker's id that no worker ever saw."""
    task_id = testbed.create()
    body = {"erc20_address": MINER_ID, "workflow_ids": ["4"]}
    reply = testbed.session.post(f"{testbed.devnet.url}/miner_request", json=body, timeout=30)
    assert reply.json()["task_id"] == task_id
    return task_id


def test_it_is_answered_with_a_failure_that_says_why(testbed: Testbed) -> None:
    testbed.start_devnet()
    stranger, good = lease_behind_its_back(testbed), testbed.create()
    testbed.start_worker(testbed.start_engine(), sequencer__wait=0.0)
    tasks = testbed.ended(stranger, good)
    assert [(task["status"], task["msg"]) for task in tasks] == [("failed", LOST), ("finished", "")]
    assert testbed.devnet.stats()["violations"] == 0


def test_it_is_answered_at_once_though_the_sequencer_holds_requests(testbed: Testbed) -> None:
    testbed.start_devnet()
    stranger = lease_behind_its_back(testbed)
    testbed.start_worker(testbed.start_engine(), sequencer__wait=300.0)
    (task,) = testbed.ended(stranger)
    assert (task["status"], task["msg"]) == ("failed", LOST)


def test_one_of_two_is_answered_while_the_other_runs_on(testbed: Testbed) -> None:
    testbed.start_devnet("--leases", "2")
    stranger = lease_behind_its_back(testbed)
    testbed.start_worker(testbed.start_engine(), sequencer__wait=0.0)
    tasks = testbed.ended(stranger, *(testbed.create() for _ in range(3)))
    assert [task["status"] for task in tasks] == ["failed", "finished", "finished", "finished"]
    assert all(len(task["answers"]) == 1 for task in tasks)
