"""Unknown tasks that the sequencer says are running here."""

from __future__ import annotations

from tests.support.testbed import MINER_ID, Testbed

LOST = "the miner lost this task in a restart before it could start; please create it again"


def lease_behind_its_back(testbed: Testbed) -> str:
    """Lease a task under the worker's id without the worker."""
    task_id = testbed.create()
    body = {"erc20_address": MINER_ID, "workflow_ids": ["4"]}
    reply = testbed.session.post(f"{testbed.devnet.url}/miner_request", json=body, timeout=30)
    assert reply.json()["task_id"] == task_id
    return task_id


def test_an_unknown_task_is_answered_with_the_reason(testbed: Testbed) -> None:
    testbed.start_devnet()
    stranger, good = lease_behind_its_back(testbed), testbed.create()
    testbed.start_worker(testbed.start_engine(), sequencer__wait=0.0)
    tasks = testbed.ended(stranger, good)
    assert [(task["status"], task["msg"]) for task in tasks] == [("failed", LOST), ("finished", "")]
    assert testbed.devnet.stats()["violations"] == 0


def test_an_unknown_task_is_answered_at_once_despite_long_polls(testbed: Testbed) -> None:
    testbed.start_devnet()
    stranger = lease_behind_its_back(testbed)
    testbed.start_worker(testbed.start_engine(), sequencer__wait=300.0)
    (task,) = testbed.ended(stranger)
    assert (task["status"], task["msg"]) == ("failed", LOST)


def test_an_unknown_task_is_answered_while_another_renders(testbed: Testbed) -> None:
    testbed.start_devnet("--leases", "2")
    stranger = lease_behind_its_back(testbed)
    testbed.start_worker(testbed.start_engine(), sequencer__wait=0.0)
    tasks = testbed.ended(stranger, *(testbed.create() for _ in range(3)))
    assert [task["status"] for task in tasks] == ["failed", "finished", "finished", "finished"]
    assert all(len(task["answers"]) == 1 for task in tasks)
