"""Expired tasks are answered in any state of ComfyUI."""

from __future__ import annotations

import time

from tests.support import flows
from tests.support.testbed import Testbed, free_port, until

LONG = 600.0  # seconds; no test waits for it


def render(testbed: Testbed, *, timeout: float) -> str:
    """A task in the middle of a render that is longer than its workflow's time; returns its id."""
    testbed.start_devnet()
    testbed.add_workflow("late", flows.wait(LONG), timeout=timeout)
    engine = testbed.start_engine(port=free_port())
    testbed.start_worker(engine, workflows={"4": ["late"], "5": ["upscaler-lanczos"]}, comfyui__interrupt_grace=2.0)
    task_id = testbed.create(parameters={})
    until(lambda: testbed.queue()["queue_running"], why="the render")
    return task_id


def test_a_render_beyond_the_timeout_is_interrupted_and_answered(testbed: Testbed) -> None:
    task_id = render(testbed, timeout=1.5)
    late, good = testbed.ended(task_id, testbed.create(workflow_id="5"))
    assert (late["status"], good["status"]) == ("failed", "finished")
    assert "time ran out" in late["msg"]
    assert not testbed.queue()["queue_running"]


def test_the_sequencers_timeout_overrides_the_workflows(testbed: Testbed) -> None:
    testbed.start_devnet()
    testbed.add_workflow("late", flows.wait(LONG))
    engine = testbed.start_engine()
    testbed.start_worker(engine, workflows={"4": ["late"], "5": ["upscaler-lanczos"]})
    late, good = testbed.ended(testbed.create(parameters={}, timeout_seconds=1.5), testbed.create(workflow_id="5"))
    assert (late["status"], good["status"]) == ("failed", "finished")
    assert not testbed.queue()["queue_running"]
    assert testbed.devnet.stats()["violations"] == 0


def test_an_expired_task_is_answered_while_comfyui_is_down(testbed: Testbed) -> None:
    task_id = render(testbed, timeout=2.0)
    testbed.engine.kill()
    (task,) = testbed.ended(task_id, patience=25.0)
    assert (task["status"], "time ran out" in task["msg"]) == ("failed", True)


def test_an_expired_task_is_answered_by_the_next_start_while_comfyui_is_down(testbed: Testbed) -> None:
    task_id = render(testbed, timeout=2.0)
    testbed.engine.kill()
    testbed.worker.kill()
    testbed.restart_worker()
    (task,) = testbed.ended(task_id, patience=25.0)
    assert (task["status"], "time ran out" in task["msg"]) == ("failed", True)


def test_after_a_restart_other_answers_do_not_wait_for_comfyui(testbed: Testbed) -> None:
    testbed.start_devnet("--leases", "2")
    testbed.add_workflow("long", flows.wait(LONG))
    engine = testbed.start_engine()
    testbed.start_worker(engine, workflows={"4": ["long"], "5": ["upscaler-lanczos"]})
    testbed.create(parameters={})
    until(lambda: testbed.queue()["queue_running"], why="the render")
    testbed.devnet.fault("fail", "miner_submit")
    wrong = testbed.create(workflow_id="5", parameters={"image": "no URL"})
    until(lambda: testbed.logged("answer_not_accepted"), why="a submission in vain")
    testbed.worker.kill()
    testbed.engine.kill()
    testbed.devnet.clear_faults()
    testbed.restart_worker()
    (task,) = testbed.ended(wrong, patience=25.0)
    assert task["status"] == "failed"


def test_a_prompt_that_expired_while_the_miner_was_down_is_canceled_in_comfyui(testbed: Testbed) -> None:
    task_id = render(testbed, timeout=1.0)
    testbed.worker.kill()
    deadline = testbed.task(task_id)["leased_at"] + 1.0
    until(lambda: time.time() > deadline, why="the deadline")
    testbed.restart_worker()
    task, good = testbed.ended(task_id, testbed.create(workflow_id="5"), patience=25.0)
    assert (task["status"], good["status"]) == ("failed", "finished")
    assert "time ran out" in task["msg"]
    assert not testbed.queue()["queue_running"]
