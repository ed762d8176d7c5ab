"""The control endpoint: what a bench or a chaos campaign reads off it."""

from __future__ import annotations

from tests.unit.devnet.talk import MINER, Talk, until


def test_every_request_is_listed_with_its_time_and_miner(talk: Talk) -> None:
    talk.ask()
    until(lambda: talk.devnet.requests("miner_request"))
    (seen,) = talk.devnet.requests("miner_request")
    assert (seen["miner_id"], seen["status"], seen["fault"]) == (MINER, 200, None)
    assert 0 < seen["seconds"] < 60
    assert talk.devnet.requests("miner_submit") == []


def test_a_task_is_listed_with_all_its_times(talk: Talk) -> None:
    task_id = talk.create()
    task = talk.lease()
    talk.fail(task)
    talk.fail(task)
    (listed,) = talk.devnet.tasks()
    assert (listed["task_id"], listed["status"], listed["msg"]) == (task_id, "failed", "it cannot be done")
    assert listed["created_at"] <= listed["leased_at"] <= listed["answered_at"]
    assert [(lease["miner_id"], lease["ended"]) for lease in listed["leases"]] == [(MINER, "answered")]
    assert [answer["verdict"] for answer in listed["answers"]] == ["first", "repeat"]
    assert listed["answers"][0]["body"]["upload_latency"] == 0.25


def test_leases_are_counted_with_their_ends(talk: Talk) -> None:
    for _ in range(2):
        talk.create()
        talk.fail(talk.lease())
    talk.create()
    talk.lease()
    leases = talk.devnet.stats()["leases"]
    assert (leases["open"], leases["ended"]) == (1, {"answered": 2})


def test_reset_forgets_everything(talk: Talk) -> None:
    talk.create()
    task = talk.lease()
    talk.answer(task, result=talk.upload(task))
    talk.fail(task, msg="another answer")
    talk.devnet.fault("fail", "miner_submit")
    talk.devnet.reset()
    stats = talk.devnet.stats()
    assert (stats["tasks"], stats["answers"], stats["violations"], stats["faults"]) == ({}, {}, 0, [])
    assert stats["store"] == {"objects": 0, "bytes": 0}
    assert talk.ask().json()["task_id"] is None


def test_a_wrong_order_to_control_is_refused_and_is_no_violation(talk: Talk) -> None:
    assert talk.post("_devnet/tasks", {"task_type": "upscaler"}).status_code == 400
    assert talk.post("_devnet/nothing", {}).status_code == 404
    assert talk.violations() == []
