"""A task whose time is over is answered, whatever state ComfyUI is in."""

from __future__ import annotations

import time

from tests.support.testbed import Rig, free_port, until
from tests.system.lane import flows

LONG = 600.0  # seconds; no test waits for it


def render(rig: Rig, *, timeout: float) -> tuple[str, str]:
    """A task in the middle of a render that is longer than its workflow's time; gives ComfyUI's URL and its id."""
    rig.start_devnet()
    rig.add_workflow("late", flows.wait(LONG), timeout=timeout)
    engine = rig.start_engine("--test-nodes", port=free_port())
    rig.start_worker(engine, workflows={"4": ["late"], "5": ["upscaler-lanczos"]}, comfyui__interrupt_grace=2.0)
    task_id = rig.create(parameters={})
    until(lambda: running(rig, engine), why="the render")
    return engine, task_id


def running(rig: Rig, engine: str) -> bool:
    return bool(rig.session.get(f"{engine}/queue", timeout=30).json()["queue_running"])


def test_one_that_renders_too_long_is_interrupted_and_answered(rig: Rig) -> None:
    engine, task_id = render(rig, timeout=1.5)
    late, good = rig.ended(task_id, rig.create(workflow_id="5"))
    assert (late["status"], good["status"]) == ("failed", "finished")
    assert "time ran out" in late["msg"]
    assert not running(rig, engine)


def test_the_time_that_the_sequencer_gives_counts_before_the_workflows_own(rig: Rig) -> None:
    rig.start_devnet()
    rig.add_workflow("late", flows.wait(LONG))
    engine = rig.start_engine("--test-nodes")
    rig.start_worker(engine, workflows={"4": ["late"], "5": ["upscaler-lanczos"]})
    late, good = rig.ended(rig.create(parameters={}, timeout_seconds=1.5), rig.create(workflow_id="5"))
    assert (late["status"], good["status"]) == ("failed", "finished")
    assert not running(rig, engine)
    assert rig.devnet.stats()["violations"] == 0


def test_it_is_answered_though_comfyui_is_down(rig: Rig) -> None:
    _engine, task_id = render(rig, timeout=2.0)
    rig.engine.kill()
    (task,) = rig.ended(task_id, patience=25.0)
    assert (task["status"], "time ran out" in task["msg"]) == ("failed", True)


def test_it_is_answered_by_the_next_start_though_comfyui_is_down(rig: Rig) -> None:
    _engine, task_id = render(rig, timeout=2.0)
    rig.engine.kill()
    rig.worker.kill()
    rig.restart_worker()
    (task,) = rig.ended(task_id, patience=25.0)
    assert (task["status"], "time ran out" in task["msg"]) == ("failed", True)


def test_another_ones_answer_does_not_wait_for_comfyui_after_a_restart(rig: Rig) -> None:
    rig.start_devnet("--leases", "2")
    rig.add_workflow("long", flows.wait(LONG))
    engine = rig.start_engine("--test-nodes")
    rig.start_worker(engine, workflows={"4": ["long"], "5": ["upscaler-lanczos"]})
    rig.create(parameters={})
    until(lambda: running(rig, engine), why="the render")
    rig.devnet.fault("fail", "miner_submit")
    wrong = rig.create(workflow_id="5", parameters={"image": "no URL"})
    until(lambda: rig.logged("answer_not_taken"), why="a submission in vain")
    rig.worker.kill()
    rig.engine.kill()
    rig.devnet.clear_faults()
    rig.restart_worker()
    (task,) = rig.ended(wrong, patience=25.0)
    assert task["status"] == "failed"


def test_a_prompt_whose_time_ran_out_while_the_miner_was_down_is_ended_in_comfyui_too(rig: Rig) -> None:
    engine, task_id = render(rig, timeout=1.0)
    rig.worker.kill()
    deadline = rig.task(task_id)["leased_at"] + 1.0
    until(lambda: time.time() > deadline, why="the deadline")
    rig.restart_worker()
    task, good = rig.ended(task_id, rig.create(workflow_id="5"), patience=25.0)
    assert (task["status"], good["status"]) == ("failed", "finished")
    assert "time ran out" in task["msg"]
    assert not running(rig, engine)
