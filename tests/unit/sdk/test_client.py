"""What goes over the wire, and what each answer becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from miner.sdk import (
    APIError,
    AuthenticationError,
    ConnectionFailed,
    InvalidReply,
    InvalidTask,
    MinerResponse,
    Progress,
    TaskCancelResponse,
    UpscalerTask,
    Workflow,
    WorkflowTask,
    WorkflowTaskResult,
)
from miner.sdk.replies import TaskStatus

from .stub import CUT, DROP, HANG, Say, Stub

TASK = UpscalerTask(image_url="https://a.example/b.jpg")


@pytest.fixture
def workflow(stub: Stub) -> Iterator[Workflow]:
    with Workflow(api_key="me#s3cret", workflow_url=stub.url) as client:
        yield client


def test_executing_creates_the_task_and_asks_for_no_miner(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_create", {"task_id": "t1"})

    assert workflow.execute_workflow(TASK) == "t1"

    assert [request.path for request in stub.requests] == ["/task_create"]
    [created] = stub.sent("/task_create")
    assert re.fullmatch(r"sdk-workflow-[0-9a-f]{10}", created.pop("job_id"))
    assert created == {
        "consumer_id": "me",
        "api_key": "s3cret",
        "task_type": "upscaler",
        "task_details": {"parameters": {"image": "https://a.example/b.jpg"}},
    }


def test_a_tasks_own_fields_beat_the_clients(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_create", {"task_id": "t1"})
    stub.answer("/task_result_query", {"task_id": "t1", "status": "finished"})
    task = UpscalerTask(
        image_url="https://a.example/b.jpg",
        consumer_id="you",
        api_key="theirs",
        workflow_id="4",
        timeout_seconds=120,
        job_id_prefix="holiday",
    )

    workflow.execute_workflow_and_wait_for_result(task)

    [created] = stub.sent("/task_create")
    assert created["job_id"].startswith("holiday-")
    assert (created["consumer_id"], created["api_key"]) == ("you", "theirs")
    assert (created["workflow_id"], created["timeout_seconds"]) == ("4", 120)
    assert stub.sent("/task_result_query") == [{"task_id": "t1", "api_key": "theirs"}]


def test_two_tasks_have_two_job_ids(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_create", {"task_id": "t1"})

    workflow.create_task(TASK)
    workflow.create_task(TASK)

    first, second = (body["job_id"] for body in stub.sent("/task_create"))
    assert first != second


def test_each_call_gives_what_was_answered_and_ignores_what_it_does_not_know(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/resource_request", {"miner_id": "0xabc", "msg": "soon", "new": 1})
    stub.answer("/task_cancel", {"task_id": "t1", "msg": "canceled", "new": 1})
    answer = {"task_id": "t1", "status": "finished", "result": "a/b.png", "result_url": "http://store/b", "new": 1}
    stub.answer("/task_result_query", answer)

    assert workflow.resource_request(workflow_id="4") == MinerResponse(miner_id="0xabc", msg="soon")
    assert workflow.cancel_task("t1") == TaskCancelResponse(task_id="t1", msg="canceled")
    assert workflow.query_task_result("t1") == WorkflowTaskResult(
        task_id="t1", status=TaskStatus.FINISHED, result="a/b.png", result_url="http://store/b"
    )
    assert stub.sent("/resource_request") == [{"consumer_id": "me", "api_key": "s3cret", "workflow_id": "4"}]
    assert stub.sent("/task_cancel") == [{"task_id": "t1", "api_key": "s3cret"}]


URL = "https://store.example/b.png?signature=1"


@pytest.mark.parametrize(
    ("answer", "url", "msg"),
    [
        ({"status": "finished", "result": "a/b.png"}, None, ""),
        ({"status": "finished", "result": URL}, URL, ""),
        ({"status": "finished", "result": {"url": URL}}, URL, ""),
        ({"status": "finished", "result": {"url": "ftp://a/b"}}, None, ""),
        ({"status": "finished", "result": {"url": 7}}, None, ""),
        ({"status": "finished", "result": [URL]}, None, ""),
        ({"status": "failed", "result": {"error": "too wide"}}, None, "too wide"),
        ({"status": "failed", "result": "too wide"}, None, "too wide"),
        ({"status": "failed", "result": {"error": "x"}, "msg": "too wide"}, None, "too wide"),
        ({"status": "failed", "result": {"error": {}}}, None, ""),
    ],
)
def test_each_form_of_a_result_is_read_even_without_the_tasks_id(
    stub: Stub, workflow: Workflow, answer: dict[str, object], url: str | None, msg: str
) -> None:
    stub.answer("/task_result_query", answer)
    result = workflow.query_task_result("t1")
    assert (result.task_id, result.result, result.result_url, result.msg) == ("t1", answer["result"], url, msg)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        ({"stage": "render", "percent": 7}, Progress(stage="render", percent=7)),
        ({"stage": "render", "percent": 7.5, "eta_seconds": 3}, Progress(stage="render", percent=7.5, eta_seconds=3)),
        ({"stage": "render", "percent": "7"}, None),
        ({"percent": 7}, None),
        ([], None),
    ],
)
def test_progress_is_read_where_it_is_understood(
    stub: Stub, workflow: Workflow, progress: object, expected: Progress | None
) -> None:
    stub.answer("/task_result_query", {"status": "running", "progress": progress})
    assert workflow.query_task_result("t1").progress == expected


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Say(status=400, body={"message": "no such workflow"}), APIError, "no such workflow"),
        (Say(status=404, body={"error": "unknown task"}), APIError, "unknown task"),
        (Say(status=401, body={"error": "wrong key"}), AuthenticationError, "wrong key"),
        (Say(status=403, body={"message": "not yours"}), AuthenticationError, "not yours"),
        (Say(status=502, body=b"<h1>Bad\nGateway</h1>"), APIError, "<h1>Bad Gateway</h1>"),
        (Say(status=500, body=["a list"]), APIError, "Internal Server Error"),
        (Say(status=503, body=b""), APIError, "Service Unavailable"),
    ],
)
def test_a_refusal_has_its_status_and_the_sequencers_words(
    stub: Stub, workflow: Workflow, reply: Say, kind: type[APIError], words: str
) -> None:
    stub.answer("/task_result_query", reply)

    with pytest.raises(APIError) as caught:
        workflow.query_task_result("t1")

    assert type(caught.value) is kind
    assert caught.value.status == reply.status
    assert caught.value.detail == words
    assert words in caught.value.message
    assert "/task_result_query" in caught.value.message


def test_a_redirect_is_refused_and_the_key_goes_nowhere_else(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_result_query", Say(status=307, headers={"Location": f"{stub.url}/elsewhere"}))

    with pytest.raises(APIError) as caught:
        workflow.query_task_result("t1")

    assert caught.value.status == 307
    assert [request.path for request in stub.requests] == ["/task_result_query"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Say(body=b"<html>welcome</html>"), "not JSON"),
        (Say(body=b""), "not JSON"),
        (Say(body=b"\xff"), "not JSON"),
        (Say(body=b"[" * 100_000), "not JSON"),
        (Say(body=["finished"]), "not a JSON object"),
        (Say(body={"task_id": 7, "status": "finished"}), "task_id is not a string"),
        (Say(body={"task_id": "t2", "status": "finished"}), "another task's"),
        (Say(body={"task_id": "t1"}), "status is missing"),
        (Say(body={"task_id": "t1", "status": "pending"}), "unknown status"),
        (Say(body={"task_id": "t1", "status": "failed", "msg": {}}), "msg is not a string"),
        (Say(body={"task_id": "t1", "status": "finished", "result_url": 7}), "result_url is not a string"),
    ],
)
def test_a_reply_that_the_protocol_does_not_know_is_refused_with_the_reason(
    stub: Stub, workflow: Workflow, reply: Say, reason: str
) -> None:
    stub.answer("/task_result_query", reply)

    with pytest.raises(InvalidReply, match=reason) as caught:
        workflow.query_task_result("t1")

    assert caught.value.status == 200


@pytest.mark.parametrize("body", [{}, {"task_id": None}, {"task_id": ""}])
def test_a_created_task_without_an_id_is_an_error(stub: Stub, workflow: Workflow, body: dict[str, Any]) -> None:
    stub.answer("/task_create", body)

    with pytest.raises(InvalidReply, match="task_id is missing"):
        workflow.create_task(TASK)


@pytest.mark.parametrize("reply", [DROP, CUT])
def test_a_lost_connection_is_an_error_and_a_task_is_sent_once(stub: Stub, workflow: Workflow, reply: str) -> None:
    stub.answer("/task_create", reply)

    with pytest.raises(ConnectionFailed, match="refused or lost") as caught:
        workflow.create_task(TASK)

    assert caught.value.status is None
    assert len(stub.sent("/task_create")) == 1


def test_a_request_times_out(stub: Stub) -> None:
    stub.answer("/task_cancel", HANG)

    with (
        Workflow(api_key="me#s3cret", workflow_url=stub.url, request_timeout=0.2) as workflow,
        pytest.raises(ConnectionFailed, match=r"none in 0\.2 s"),
    ):
        workflow.cancel_task("t1")


def test_nobody_listening_is_a_failed_connection() -> None:
    with (
        Workflow(api_key="me#s3cret", workflow_url="http://127.0.0.1:1") as workflow,
        pytest.raises(ConnectionFailed, match="refused or lost"),
    ):
        workflow.query_task_result("t1")


def test_a_key_is_in_no_error(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_result_query", Say(status=500), Say(body=b"junk"), DROP)

    for _ in range(3):
        with pytest.raises((APIError, InvalidReply, ConnectionFailed)) as caught:
            workflow.query_task_result("t1")
        assert "s3cret" not in repr(caught.value)


def test_details_that_are_no_json_are_the_tasks_fault(stub: Stub, workflow: Workflow) -> None:
    class OddTask(WorkflowTask):
        @property
        def task_type(self) -> str:
            return "odd"

        @property
        def parameters(self) -> dict[str, Any]:
            return {"what": object()}

    with pytest.raises(InvalidTask, match="JSON"):
        workflow.create_task(OddTask())

    assert stub.requests == []


def test_calls_share_a_connection_and_leaving_closes_it(stub: Stub) -> None:
    stub.answer("/task_result_query", {"task_id": "t1", "status": "waiting"})

    with Workflow(api_key="me#s3cret", workflow_url=stub.url) as workflow:
        workflow.query_task_result("t1")
        workflow.query_task_result("t1")
        assert len(stub.connections) == 1

    assert stub.reaches(lambda: not stub.connections)
