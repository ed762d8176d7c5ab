"""What becomes of a task and of its answers."""

from __future__ import annotations

import pytest

from tests.unit.devnet.conftest import Start
from tests.unit.devnet.talk import DETAILS, MINER, OTHER, Talk, key_of, until


def test_a_result_that_is_in_the_store_finishes_the_task(talk: Talk) -> None:
    task_id = talk.create()
    task = talk.lease()
    assert talk.answer(task, result=talk.upload(task)).status_code == 200
    answer = talk.query(task_id)
    assert answer["status"] == "finished"
    assert talk.session.get(answer["result"]["url"], timeout=5).content == b"a picture"


@pytest.mark.parametrize("form", ["{}", "results/{}", "store/results/{}", "/store/results/{}"])
def test_the_key_may_be_named_as_the_urls_path_shows_it(talk: Talk, form: str) -> None:
    talk.create()
    task = talk.lease()
    assert talk.answer(task, result=form.format(talk.upload(task))).status_code == 200
    assert f"/{key_of(task)}?" in talk.query(task["task_id"])["result"]["url"]


@pytest.mark.parametrize("pattern", ["{}.jpg", "flux-lora-None-{}.jpg", "folder/hunyuan-fp8-0xab-{}.mp4"])
@pytest.mark.parametrize(
    ("data", "content_type", "suffix", "served"),
    [
        (b"\xff\xd8\xff\xe0 a picture", None, "jpg", "image/jpeg"),
        (b"\x00\x00\x00\x18ftypisom a film", "application/octet-stream", "mp4", "video/mp4"),
        (b"no format that is known", "image/webp", "webp", "image/webp"),
        (b"nor told", None, "bin", "application/octet-stream"),
    ],
)
def test_a_miner_that_names_objects_its_own_way_and_works_under_an_unknown_id(
    talk: Talk, pattern: str, data: bytes, content_type: str | None, suffix: str, served: str
) -> None:
    task_id = talk.create(workflow_id="12")
    task = talk.lease(ids=["12"])
    headers = {"Content-Type": content_type} if content_type else {}
    talk.session.put(task["upload_url"], data=data, headers=headers, timeout=5).raise_for_status()
    assert talk.answer(task, result=pattern.format(task_id)).status_code == 200
    url = talk.query(task_id)["result"]["url"]
    stored = talk.session.get(url, timeout=5)
    assert url.partition("?")[0].rpartition(".")[2] == suffix
    assert (stored.content, stored.headers["content-type"].partition(";")[0]) == (data, served)


def test_a_task_whose_answer_was_refused_does_not_run_for_ever(start: Start) -> None:
    talk = start(lease_ttl=0.3)
    task_id = talk.create()
    talk.answer(talk.lease(), result="another")
    until(lambda: talk.ask(ids=[]) and talk.query(task_id)["status"] == "failed")


def test_a_failure_gives_the_consumer_the_reason(talk: Talk) -> None:
    task_id = talk.create()
    talk.fail(talk.lease(), msg="width must be at most 2048")
    answer = talk.query(task_id)
    assert (answer["status"], answer["msg"]) == ("failed", "width must be at most 2048")
    assert answer["result"] == {"error": "width must be at most 2048"}  # the network's SDKs know no msg


def test_a_result_that_is_not_in_the_store_is_refused_and_can_be_answered_again(talk: Talk) -> None:
    task_id = talk.create()
    task = talk.lease()
    reply = talk.answer(task, result=key_of(task))
    assert (reply.status_code, "not in the store" in reply.json()["message"]) == (400, True)
    assert talk.query(task_id)["status"] == "running"
    assert talk.answer(task, result=talk.upload(task)).status_code == 200


def test_an_empty_result_is_refused(talk: Talk) -> None:
    talk.create()
    task = talk.lease()
    reply = talk.answer(task, result=talk.upload(task, b""))
    assert (reply.status_code, "empty" in reply.json()["message"]) == (400, True)


def test_another_key_than_the_urls_is_refused(talk: Talk) -> None:
    talk.create()
    task = talk.lease()
    talk.upload(task)
    reply = talk.answer(task, result=f"wf-{MINER}-{task['task_id']}0.png")
    assert (reply.status_code, "is not the key of upload_url" in reply.json()["message"]) == (400, True)


def test_a_task_without_a_target_can_only_fail(talk: Talk) -> None:
    talk.devnet.create(task_type="upscaler", task_details=DETAILS, workflow_id="4", target="none")
    task = talk.lease()
    assert talk.answer(task).status_code == 400
    assert talk.fail(task).status_code == 200


def test_the_same_answer_again_is_acknowledged_and_counted_as_a_repeat(talk: Talk) -> None:
    talk.create()
    task = talk.lease()
    assert [talk.fail(task).status_code for _ in range(3)] == [200, 200, 200]
    assert talk.devnet.stats()["answers"] == {"first": 1, "repeat": 2}
    assert talk.violations() == []


@pytest.mark.parametrize("change", [{"msg": "another reason"}, {"upload_latency": 0.5}])
def test_another_answer_after_the_acknowledgement_is_a_violation_and_the_first_one_stays(
    talk: Talk, change: dict[str, object]
) -> None:
    task_id = talk.create()
    task = talk.lease()
    talk.fail(task)
    assert talk.fail(task, **change).status_code == 400
    assert talk.violations() == [f"answered after the acknowledgement: task {task_id} has another answer already"]
    assert talk.query(task_id)["msg"] == "it cannot be done"
    assert talk.devnet.stats()["answers"] == {"first": 1, "differing": 1}


def test_a_canceled_task_is_named_to_its_miner_and_a_late_answer_does_not_count(talk: Talk) -> None:
    task_id = talk.create()
    task = talk.lease()
    assert talk.cancel(task_id).json()["task_id"] == task_id
    assert talk.ask().json()["canceled"] == [task_id]
    assert talk.fail(task).status_code == 200
    assert talk.query(task_id)["status"] == "canceled"
    assert (talk.devnet.stats()["answers"], talk.violations()) == ({"late": 1}, [])


def test_the_time_out_is_counted_from_the_lease_and_a_late_answer_does_not_count(talk: Talk) -> None:
    task_id = talk.create(timeout_seconds=0.1)
    task = talk.lease()
    until(lambda: talk.query(task_id)["status"] == "failed")
    assert "timed out" in talk.query(task_id)["msg"]
    assert talk.answer(task, result=talk.upload(task)).status_code == 200
    assert talk.query(task_id)["status"] == "failed"
    stats = talk.devnet.stats()
    assert (stats["answers"], stats["leases"]["ended"]) == ({"late": 1}, {"timed out": 1})


def test_a_silent_miner_loses_its_task_to_the_next(start: Start) -> None:
    talk = start(lease_ttl=0.2)
    task_id = talk.create()
    lost = talk.lease()
    until(lambda: talk.query(task_id)["status"] == "waiting")
    task = talk.lease(OTHER)
    assert task["task_id"] == task_id
    assert task["upload_url"] != lost["upload_url"], "who lost a task must not write over who got it"
    assert talk.fail(lost, msg="too late").status_code == 200
    assert talk.fail(task, miner_id=OTHER, msg="in time").status_code == 200
    assert talk.query(task_id)["msg"] == "in time"
    assert talk.devnet.stats()["answers"] == {"first": 1, "late": 1}
