"""The consumer's side of the protocol."""

from __future__ import annotations

import pytest

from tests.unit.devnet.conftest import Start
from tests.unit.devnet.talk import MINER, Talk, creation


def resource(talk: Talk, **fields: str) -> tuple[int, str]:
    reply = talk.post("resource_request", {"consumer_id": "consumer", "api_key": "key", **fields})
    return reply.status_code, reply.json().get("miner_id", "")


def test_a_task_goes_from_waiting_over_running_to_its_end(talk: Talk) -> None:
    task_id = talk.create()
    assert talk.query(task_id) == {"task_id": task_id, "status": "waiting"}
    task = talk.lease()
    assert talk.query(task_id) == {"task_id": task_id, "status": "running"}
    talk.fail(task)
    assert talk.query(task_id)["status"] == "failed"


def test_a_consumer_sees_how_far_its_task_is(talk: Talk) -> None:
    task_id = talk.create()
    task = talk.lease()
    said = {"task_id": task_id, "stage": "render", "percent": 42.5}
    beat = {"erc20_address": MINER, "workflow_ids": [], "progress": [said, {**said, "task_id": "another's"}]}
    assert talk.post("miner_request", beat).status_code == 200
    assert talk.query(task_id) == {"task_id": task_id, "status": "running", "progress": said}
    talk.fail(task)
    assert "progress" not in talk.query(task_id)
    assert talk.post("miner_request", beat | {"progress": [said | {"percent": 101}]}).status_code == 400


def test_a_waiting_task_that_is_canceled_is_never_leased(talk: Talk) -> None:
    task_id = talk.create()
    assert talk.cancel(task_id).status_code == 200
    assert talk.query(task_id)["status"] == "canceled"
    assert talk.ask().json()["task_id"] is None


def test_an_ended_task_stays_as_it_is_when_it_is_canceled(talk: Talk) -> None:
    task_id = talk.create()
    talk.fail(talk.lease())
    reply = talk.cancel(task_id)
    assert (reply.status_code, reply.json()["msg"]) == (200, "the task is already failed")
    assert talk.query(task_id)["status"] == "failed"


@pytest.mark.parametrize("call", ["task_result_query", "task_cancel"])
def test_a_task_is_seen_only_with_the_key_that_created_it(talk: Talk, call: str) -> None:
    task_id = talk.create()
    for body in ({"task_id": task_id, "api_key": "another"}, {"task_id": "nothing", "api_key": "key"}):
        assert talk.post(call, body).status_code == 404


def test_a_miner_is_found_by_what_it_offers(talk: Talk) -> None:
    assert resource(talk) == (404, "")
    talk.ask(ids=["1", "4"])
    talk.ask(ids=[])  # a heartbeat takes nothing back
    assert resource(talk) == (200, MINER)
    assert resource(talk, workflow_id="1", task_type="txt2vid") == (200, MINER)
    assert resource(talk, task_type="upscaler") == (200, MINER)
    assert resource(talk, workflow_id="3") == (404, "")
    assert resource(talk, task_type="txt2img") == (404, "")
    assert talk.violations() == []


def test_a_configured_key_belongs_to_its_consumer(start: Start) -> None:
    talk = start(api_keys=("other", "me#abc"))

    def status(consumer: str, key: str) -> int:
        return talk.post("task_create", creation(consumer_id=consumer, api_key=key)).status_code

    assert (status("me", "abc"), status("anyone", "other")) == (200, 200)
    assert [status("you", "abc"), status("me", "abd"), status("me", "me#abc")] == [401, 401, 401]
