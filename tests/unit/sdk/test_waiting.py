"""How long a client waits, what it waits over, and what ends it. No test waits for real: the clock is a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from miner.sdk import (
    APIError,
    AuthenticationError,
    ConnectionFailed,
    InvalidReply,
    TaskTimeout,
    UpscalerTask,
    Workflow,
    WorkflowTaskResult,
)
from miner.sdk.client import Heard

from .stub import DROP, HANG, Say, Stub

TASK = UpscalerTask(image_url="https://a.example/b.jpg")
WAITING = {"task_id": "t1", "status": "waiting"}
RUNNING = {"task_id": "t1", "status": "running"}
FINISHED = {"task_id": "t1", "status": "finished", "result": "a/b.png"}


@dataclass(slots=True)
class Clock:
    """Monotonic seconds that pass only when they are waited for."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workflow(stub: Stub, clock: Clock) -> Iterator[Workflow]:
    stub.answer("/task_create", {"task_id": "t1"})
    with Workflow(api_key="me#s3cret", workflow_url=stub.url, clock=lambda: clock.now, wait=clock.wait) as client:
        yield client


def test_it_asks_at_once_and_then_every_ten_seconds(stub: Stub, workflow: Workflow, clock: Clock) -> None:
    stub.answer("/task_result_query", WAITING, RUNNING, RUNNING, FINISHED)

    result = workflow.execute_workflow_and_wait_for_result(TASK)

    assert (result.status, result.result) == ("finished", "a/b.png")
    assert clock.waits == [10, 10, 10]


@pytest.mark.parametrize("status", ["finished", "failed", "canceled"])
def test_an_ended_task_ends_the_wait(stub: Stub, workflow: Workflow, clock: Clock, status: str) -> None:
    stub.answer("/task_result_query", {"task_id": "t1", "status": status, "msg": "why"})

    result = workflow.execute_workflow_and_wait_for_result(TASK)

    assert (result.status, result.msg, result.ended) == (status, "why", True)
    assert clock.waits == []


def test_it_gives_up_after_the_timeout_and_says_how_the_task_stood(
    stub: Stub, workflow: Workflow, clock: Clock
) -> None:
    stub.answer("/task_result_query", RUNNING)

    with pytest.raises(TaskTimeout, match="t1 did not end within 25 s") as caught:
        workflow.execute_workflow_and_wait_for_result(TASK, timeout=25, interval=10)

    assert clock.waits == [10, 10, 5]
    assert len(stub.sent("/task_result_query")) == 4, "it asks once more when the time is up"
    assert (caught.value.task_id, caught.value.last_status) == ("t1", "running")
    assert caught.value.__cause__ is None


def test_a_timeout_of_nothing_asks_once(stub: Stub, workflow: Workflow, clock: Clock) -> None:
    stub.answer("/task_result_query", WAITING)

    with pytest.raises(TaskTimeout):
        workflow.wait_for_result("t1", timeout=0)

    assert clock.waits == []
    assert len(stub.sent("/task_result_query")) == 1


def test_an_asking_that_hangs_does_not_outlast_the_wait(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_result_query", HANG)

    with pytest.raises(TaskTimeout) as caught:
        workflow.wait_for_result("t1", timeout=0)

    assert isinstance(caught.value.__cause__, ConnectionFailed)
    assert "none in 1 s" in caught.value.__cause__.message


@pytest.mark.parametrize(
    "trouble",
    [Say(status=500), Say(status=503), Say(status=429), Say(status=408), DROP, Say(body=b"<html>"), {"task_id": "t1"}],
)
def test_a_sequencer_in_trouble_is_asked_again(
    stub: Stub, workflow: Workflow, clock: Clock, trouble: Say | str | dict[str, str]
) -> None:
    stub.answer("/task_result_query", WAITING, trouble, trouble, FINISHED)

    assert workflow.wait_for_result("t1").status == "finished"
    assert clock.waits == [10, 10, 10]


def test_trouble_to_the_end_is_the_cause_of_the_timeout(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_result_query", WAITING, Say(status=502))

    with pytest.raises(TaskTimeout, match="last status: waiting") as caught:
        workflow.wait_for_result("t1", timeout=30)

    assert isinstance(caught.value.__cause__, APIError)
    assert caught.value.__cause__.status == 502


def test_a_status_that_was_never_heard_is_not_made_up(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_result_query", DROP)

    with pytest.raises(TaskTimeout, match="no status received") as caught:
        workflow.wait_for_result("t1", timeout=30)

    assert caught.value.last_status is None
    assert isinstance(caught.value.__cause__, ConnectionFailed)


@pytest.mark.parametrize(("retry_after", "waited"), [("25", 25), ("3", 10), ("999", 300), ("soon", 10), ("-5", 10)])
def test_it_waits_as_long_as_the_sequencer_asks_but_not_past_the_timeout(
    stub: Stub, workflow: Workflow, clock: Clock, retry_after: str, waited: float
) -> None:
    stub.answer("/task_result_query", Say(status=429, headers={"Retry-After": retry_after}), FINISHED)

    assert workflow.wait_for_result("t1").status == "finished"
    assert clock.waits == [waited]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(Say(status=400), APIError), (Say(status=404), APIError), (Say(status=401), AuthenticationError)],
)
def test_a_refusal_that_asking_again_would_not_mend_ends_the_wait(
    stub: Stub, workflow: Workflow, clock: Clock, reply: Say, kind: type[APIError]
) -> None:
    stub.answer("/task_result_query", WAITING, reply)

    with pytest.raises(kind):
        workflow.wait_for_result("t1")

    assert clock.waits == [10]


@pytest.mark.parametrize(("timeout", "interval"), [(300, 0.99), (300, float("nan")), (-1, 10), (float("nan"), 10)])
def test_an_interval_under_a_second_is_refused_before_a_task_exists(
    stub: Stub, workflow: Workflow, timeout: float, interval: float
) -> None:
    with pytest.raises(ValueError, match=r"interval|timeout"):
        workflow.execute_workflow_and_wait_for_result(TASK, timeout=timeout, interval=interval)

    assert stub.requests == []


@pytest.mark.parametrize("reply", [Say(status=503), DROP, Say(body=b"junk")])
def test_creating_a_task_is_never_repeated(stub: Stub, workflow: Workflow, reply: Say | str) -> None:
    stub.answer("/task_create", reply)

    with pytest.raises((APIError, ConnectionFailed, InvalidReply)):
        workflow.execute_workflow_and_wait_for_result(TASK)

    assert len(stub.sent("/task_create")) == 1


def test_each_asking_is_told(stub: Stub, workflow: Workflow) -> None:
    stub.answer("/task_result_query", WAITING, Say(status=500), FINISHED)
    told: list[Heard] = []

    workflow.wait_for_result("t1", heard=told.append)

    first, second, third = told
    assert isinstance(first, WorkflowTaskResult)
    assert first.status == "waiting"
    assert isinstance(second, APIError)
    assert isinstance(third, WorkflowTaskResult)
    assert third.status == "finished"
