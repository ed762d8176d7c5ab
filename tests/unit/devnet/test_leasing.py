"""What a miner gets when it asks."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import requests

from tests.unit.devnet.conftest import Start
from tests.unit.devnet.talk import DETAILS, MINER, OTHER, VARIANT, Talk


def test_a_task_comes_with_everything_that_the_protocol_names(talk: Talk) -> None:
    task_id = talk.create(timeout_seconds=90)
    task = talk.lease()
    url = task.pop("upload_url")
    assert task == {
        "task_id": task_id,
        "task_type": "upscaler",
        "workflow_id": "4",
        "miner_id": MINER,
        "task_details": DETAILS,
        "timeout_seconds": 90,
    }
    assert url.startswith(f"{talk.devnet.url}/store/results/")
    assert talk.query(task_id)["status"] == "running"


def test_the_oldest_task_of_the_offered_workflows_comes_first(start: Start) -> None:
    talk = start(leases=3)
    ids = [talk.create(workflow_id=w) for w in ("1", "4", "2", "4")]
    assert [talk.lease(ids=["4", "2"])["task_id"] for _ in range(3)] == [ids[1], ids[2], ids[3]]


def test_a_task_without_a_workflow_goes_to_one_of_its_type(talk: Talk) -> None:
    talk.create(workflow_id=None, task_type="txt2vid")
    assert talk.ask(ids=["3", "4"]).json()["task_id"] is None
    assert talk.lease(ids=["4", "2", "1"])["workflow_id"] == "2"


def test_a_miner_that_offers_nothing_gets_nothing(talk: Talk) -> None:
    talk.create()
    assert talk.ask(ids=[]).json()["task_id"] is None


def test_at_its_limit_a_miner_hears_which_task_is_running(talk: Talk) -> None:
    talk.create()
    talk.create()
    task = talk.lease()
    for _ in range(2):
        reply = talk.ask().json()
        assert reply["task_id"] == task["task_id"]
        assert "running" in reply["msg"]
        assert "task_details" not in reply
    assert talk.lease(OTHER)["task_id"] != task["task_id"]


def test_below_its_limit_with_nothing_to_give_a_miner_hears_of_its_oldest_task(start: Start) -> None:
    talk = start(leases=3)
    first, second = talk.create(), talk.create()
    assert [talk.lease()["task_id"] for _ in range(2)] == [first, second]
    assert talk.ask().json()["task_id"] == first
    talk.fail({"task_id": first})
    assert talk.ask(ids=[]).json()["task_id"] == second


def test_the_limit_holds_for_each_miner_id(start: Start) -> None:
    talk = start(leases=3)
    for _ in range(7):
        talk.create()
    for miner in (MINER, OTHER):
        assert len({talk.lease(miner)["task_id"] for _ in range(3)}) == 3
        assert "running" in talk.ask(miner).json()["msg"]
    assert talk.devnet.stats()["tasks"] == {"running": 6, "waiting": 1}


def test_twenty_threads_that_ask_at_once_get_each_task_once(start: Start) -> None:
    talk = start(leases=3)
    created = [talk.create() for _ in range(60)]

    def ask(miner: str) -> list[str]:
        with requests.Session() as session:
            alone = replace(talk, session=session)
            replies = [alone.ask(miner).json() for _ in range(5)]
        return [reply["task_id"] for reply in replies if "task_details" in reply]

    miners = [f"0x{number:040x}" for number in range(20)]
    with ThreadPoolExecutor(20) as threads:
        leased = Counter(task_id for got in threads.map(ask, miners) for task_id in got)
    assert sorted(leased) == sorted(created)
    assert set(leased.values()) == {1}


def test_nothing_can_be_said_by_a_status_alone(start: Start) -> None:
    reply = start(nothing="204").ask()
    assert (reply.status_code, reply.content) == (204, b"")


def test_a_sequencer_can_differ_from_the_public_one_in_every_way(start: Start) -> None:
    """Without `task_id: null`, waiting and the names of canceled tasks; details as a string, URLs of another base."""
    talk = start(**VARIANT)
    reply = talk.ask(wait=60)
    assert (reply.status_code, reply.json().keys()) == (200, {"msg"})
    assert "Preference-Applied" not in reply.headers
    task_id = talk.create()
    task = talk.lease()
    assert json.loads(task["task_details"]) == DETAILS
    assert task["upload_url"].startswith("http://devnet.example:9/store/results/")
    talk.cancel(task_id)
    assert talk.ask().json().keys() == {"msg"}


def test_details_can_have_the_older_form(talk: Talk) -> None:
    details = {"parameters": {"prompt": "a cat", "lora_name": "x"}}
    talk.devnet.create(task_type="txt2img", task_details=details, workflow_id="3", details_form="prompt")
    assert talk.lease(ids=["3"])["task_details"] == {"prompt": "a cat"}


def test_control_creates_tasks_that_no_consumer_could(talk: Talk) -> None:
    talk.devnet.create(
        task_type="dance", task_details=[1], workflow_id="99", any_miner=True, target="none", extra={"upload_url": "x:"}
    )
    task = talk.lease(ids=["4"])
    assert (task["task_type"], task["task_details"], task["workflow_id"]) == ("dance", [1], "99")
    assert task["upload_url"] == "x:"


def test_each_target_has_its_own_fields(start: Start) -> None:
    talk = start(leases=3, credential={"access_key_id": "A"})
    targets: dict[str, set[str]] = {"none": set(), "presigned": {"upload_url"}, "s3": {"credential"}}
    for target, fields in targets.items():
        talk.devnet.create(task_type="upscaler", task_details=DETAILS, workflow_id="4", target=target)
        lease = talk.lease()
        assert {"upload_url", "credential"} & lease.keys() == fields
    assert lease["credential"] == {"access_key_id": "A"}
