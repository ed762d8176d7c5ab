"""Tasks that the sequencer took away are stopped without an answer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from miner.devnet.options import DevnetOptions
from tests.support import flows
from tests.support.devnet import serve
from tests.support.relay import Relay
from tests.support.relayed_testbed import RelayedTestbed, Step
from tests.support.testbed import Testbed, until


def render(testbed: Testbed) -> str:
    """A task of ten minutes in the middle of its render; returns its id."""
    testbed.add_workflow("long", flows.wait(600.0))
    engine = testbed.start_engine()
    testbed.start_worker(engine, workflows={"4": ["long"], "5": ["upscaler-lanczos"]})
    task_id = testbed.create(parameters={})
    until(lambda: testbed.queue()["queue_running"], why="the render")
    return task_id


def goes_on(testbed: Testbed, task_id: str) -> None:
    """The miner is idle again, and did not answer the task."""
    (good,) = testbed.ended(testbed.create(workflow_id="5"))
    assert good["status"] == "finished"
    assert testbed.task(task_id)["answers"] == []
    assert testbed.devnet.stats()["violations"] == 0


def test_a_canceled_task_is_interrupted(testbed: Testbed) -> None:
    testbed.start_devnet()
    task_id = render(testbed)
    testbed.cancel(task_id)
    until(lambda: not testbed.queue()["queue_running"], why="the interrupt")
    goes_on(testbed, task_id)


def test_a_task_canceled_soon_after_its_lease_is_interrupted(testbed: Testbed, tmp_path: Path) -> None:
    """Long before a regular heartbeat, and although a sequencer that names no canceled task leases the next one."""
    with serve(DevnetOptions(name_canceled=False, state=tmp_path / "quiet")) as testbed.devnet:
        testbed.add_workflow("long", flows.wait(600.0))
        workflows = {"4": ["long"], "5": ["upscaler-lanczos"]}
        testbed.start_worker(testbed.start_engine(), workflows=workflows, sequencer__heartbeat=8.0)
        task_id = testbed.create(parameters={})
        until(lambda: testbed.devnet.stats()["leases"]["open"] == 1, why="the lease")
        leased_at = testbed.task(task_id)["leases"][0]["leased_at"]
        until(lambda: testbed.devnet.requests("miner_request")[-1]["at"] > leased_at + 0.1, why="`running`")
        assert testbed.devnet.requests("miner_request")[-1]["at"] < leased_at + 5.0
        testbed.cancel(task_id)
        goes_on(testbed, task_id)


def test_a_queued_task_is_deleted_from_the_queue(testbed: Testbed) -> None:
    testbed.start_devnet("--leases", "2")
    first = render(testbed)
    second = testbed.create(parameters={})
    until(lambda: testbed.queue()["queue_pending"], why="the second prompt")
    testbed.cancel(second)
    testbed.cancel(first)
    until(lambda: not any(testbed.queue().values()), why="an empty queue")
    goes_on(testbed, first)
    assert testbed.task(second)["answers"] == []


def test_a_task_canceled_while_the_miner_is_down_is_stopped_by_the_next_start(testbed: Testbed) -> None:
    testbed.start_devnet()
    task_id = render(testbed)
    testbed.worker.kill()
    testbed.cancel(task_id)
    testbed.restart_worker()
    until(lambda: not testbed.queue()["queue_running"], why="the interrupt")
    goes_on(testbed, task_id)


@pytest.mark.parametrize("step", ["prepared", "prompted", "rendered", "uploaded"])
def test_a_lost_task_stops_at_its_stage(relayed: RelayedTestbed, step: Step) -> None:
    relayed.begin(step)
    relayed.cancel(relayed.task_id)
    until(lambda: relayed.logged("task_taken_away", task_id=relayed.task_id), why="the news")
    relayed.held.release()
    (good,) = relayed.ended(relayed.create(parameters={"image": f"{relayed.inputs.url}/cell-1.png"}))
    assert good["status"] == "finished"
    assert relayed.task(relayed.task_id)["answers"] == []
    if step == "prepared":
        assert sum(line.startswith(b"POST /prompt ") for line in relayed.comfyui.seen) == 1  # the good one's


def test_a_task_leased_again_after_a_late_answer_is_rendered_again(testbed: Testbed, tmp_path: Path) -> None:
    """A miner that was silent for too long loses the task; its late answer does not count. Then it is leased again, and
    the object that was uploaded for the first lease is not at the place that the second one is for."""
    with serve(DevnetOptions(lease_ttl=1.0, state=tmp_path / "strict")) as testbed.devnet:
        testbed.add_workflow("gated", flows.wait(600.0, until="gate"))
        testbed.start_worker(testbed.start_engine(), workflows={"4": ["gated"]}, sequencer__heartbeat=3600.0)
        task_id = testbed.create(parameters={})
        until(lambda: len(testbed.task(task_id)["leases"]) == 1, why="the lease")
        until(lambda: testbed.task(task_id)["status"] == "waiting", why="the loss")
        (testbed.folder / "engine" / "input" / "gate").touch()
        (task,) = testbed.ended(task_id)
    assert task["status"] == "finished"
    assert [lease["ended"] for lease in task["leases"]] == ["silent", "answered"]


def test_a_task_leased_again_while_in_hand_goes_to_its_new_upload_target(testbed: Testbed, tmp_path: Path) -> None:
    """The network was away for longer than the sequencer waits for a sign of life, but the render went on."""
    with (
        serve(DevnetOptions(lease_ttl=1.0, state=tmp_path / "strict")) as testbed.devnet,
        closing(Relay(testbed.devnet.url)) as relay,
    ):
        testbed.add_workflow("gated", flows.wait(600.0, until="gate"))
        testbed.start_worker(
            testbed.start_engine(),
            workflows={"4": ["gated"]},
            sequencer__url=relay.url,
            network__allow=[relay.host],
        )
        task_id = testbed.create(parameters={})
        until(lambda: testbed.logged("task_step", step="prompted"), why="the prompt")
        before = len(testbed.devnet.requests("miner_request"))
        until(lambda: len(testbed.devnet.requests("miner_request")) >= before + 2, why="`running`")
        with relay.away():
            until(lambda: testbed.task(task_id)["status"] == "waiting", why="the loss")
        until(lambda: len(testbed.task(task_id)["leases"]) == 2, why="the second lease")
        (testbed.folder / "engine" / "input" / "gate").touch()
        (task,) = testbed.ended(task_id)
        violations = testbed.devnet.stats()["violation_list"]
        testbed.worker.kill()
    assert (task["status"], task["msg"], violations) == ("finished", "", [])
