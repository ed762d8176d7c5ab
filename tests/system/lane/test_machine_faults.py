"""What this machine spoils is tried again, in a renderer that was mended, and counts against the machine."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import Any

import pytest

from miner.task.policy import Health
from tests.support.relay import Relay
from tests.support.testbed import Rig, until
from tests.system.lane import flows


def start_managed(rig: Rig, graph: flows.Graph, managed: dict[str, Any], **settings: Any) -> None:
    rig.start_devnet()
    rig.add_workflow("flow", graph)
    rig.start_worker("", workflows={"4": ["flow"], "5": ["upscaler-lanczos"]}, **managed, **settings)


def processes(rig: Rig) -> int:
    """How many of ComfyUI were started."""
    return len(rig.logged("comfyui_started"))


def cancel(rig: Rig, task_id: str) -> None:
    body = {"task_id": task_id, "api_key": "devnet"}
    assert rig.session.post(f"{rig.devnet.url}/task_cancel", json=body, timeout=30).status_code == 200


# ---- a process that is sick -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cuda", "exit"])
def test_what_breaks_the_process_gets_a_new_one_and_the_task_its_second_chance(
    rig: Rig, managed: dict[str, Any], kind: str
) -> None:
    """`exit` ends the executing thread, while HTTP goes on answering and the queue stands still."""
    start_managed(rig, flows.fail(kind, times=1), managed, comfyui__stall_timeout=1.0)
    (task,) = rig.ended(rig.create(parameters={}))
    assert task["status"] == "finished", task["msg"]
    assert processes(rig) == 2


def test_a_prompt_that_ignores_an_interrupt_costs_the_process_its_life(rig: Rig, managed: dict[str, Any]) -> None:
    start_managed(rig, flows.wait(600.0, interruptible=False), managed, comfyui__interrupt_grace=1.0)
    deaf = rig.create(parameters={})
    until(lambda: rig.logged("task_step", step="prompted"), why="the prompt")
    cancel(rig, deaf)
    (good,) = rig.ended(rig.create(workflow_id="5"))
    assert good["status"] == "finished"
    assert processes(rig) == 2
    assert rig.task(deaf)["answers"] == []


def test_a_process_that_is_killed_in_the_middle_is_started_again_and_the_task_done(
    rig: Rig, managed: dict[str, Any]
) -> None:
    start_managed(rig, flows.wait(600.0, until="gate"), managed)
    task_id = rig.create(parameters={})
    until(lambda: rig.logged("task_step", step="prompted"), why="the prompt")
    kill_engine(rig)
    (rig.folder / "state" / "comfyui-embedded" / "input" / "gate").touch()
    (task,) = rig.ended(task_id)
    assert task["status"] == "finished"
    assert processes(rig) == 2


def test_a_process_that_hangs_in_the_middle_is_ended_and_the_task_done_by_the_next_one(
    rig: Rig, managed: dict[str, Any]
) -> None:
    """Stopped for good, it takes connections and answers none; that is noticed when it was silent for long enough."""
    start_managed(rig, flows.wait(600.0, until="gate"), managed)
    task_id = rig.create(parameters={})
    until(lambda: rig.logged("task_step", step="prompted"), why="the prompt")
    (started,) = rig.logged("comfyui_started")
    os.kill(started["pid"], signal.SIGSTOP)
    (rig.folder / "state" / "comfyui-embedded" / "input" / "gate").touch()
    (task,) = rig.ended(task_id)
    assert task["status"] == "finished"
    assert processes(rig) == 2


def test_a_process_that_dies_while_nothing_is_to_do_is_started_again(rig: Rig, managed: dict[str, Any]) -> None:
    """Else the miner leases a task to find out."""
    start_managed(rig, flows.wait(0.0), managed)
    until(lambda: rig.logged("comfyui_ready"), why="a ComfyUI")
    kill_engine(rig)
    until(lambda: processes(rig) == 2, why="a new process", patience=20.0)


def test_a_process_that_outlived_its_miner_is_kept_with_the_prompt_in_it(rig: Rig, managed: dict[str, Any]) -> None:
    start_managed(rig, flows.wait(600.0, until="gate"), managed)
    task_id = rig.create(parameters={})
    until(lambda: rig.logged("task_step", step="prompted"), why="the prompt")
    rig.worker.kill()
    rig.restart_worker()
    until(lambda: rig.logged("task_picked_up", next="follow"), why="the prompt's recovery")
    (rig.folder / "state" / "comfyui-embedded" / "input" / "gate").touch()
    (task,) = rig.ended(task_id)
    assert task["status"] == "finished"
    assert (processes(rig), len(rig.logged("comfyui_adopted"))) == (1, 1)


def kill_engine(rig: Rig) -> None:
    (started,) = rig.logged("comfyui_started")
    os.kill(started["pid"], signal.SIGKILL)


# ---- too little memory ------------------------------------------------------------------------------------------


def render(rig: Rig, graph: flows.Graph) -> tuple[str, str, list[str]]:
    """A task's status and message, and what ComfyUI was told meanwhile."""
    rig.start_devnet()
    rig.add_workflow("flow", graph)
    with closing(Relay(rig.start_engine("--test-nodes"))) as comfyui:
        rig.start_worker(comfyui.url, workflows={"4": ["flow"]})
        (task,) = rig.ended(rig.create(parameters={}))
        told = [line.decode().split()[1] for line in comfyui.seen if line.startswith((b"POST /prompt", b"POST /free"))]
        rig.worker.kill()
    return task["status"], task["msg"], told


def test_out_of_memory_is_tried_once_more_after_free(rig: Rig) -> None:
    assert render(rig, flows.fail("out-of-memory", times=1)) == ("finished", "", ["/prompt", "/free", "/prompt"])


def test_out_of_memory_twice_is_answered(rig: Rig) -> None:
    status, msg, told = render(rig, flows.fail("out-of-memory"))
    assert (status, msg) == ("failed", "this miner's renderer failed on the task; please create it again")
    assert told[:3] == ["/prompt", "/free", "/prompt"]


def test_a_node_that_fails_for_the_task_is_no_fault_of_the_machine(rig: Rig) -> None:
    expected = ("failed", "rendering failed in DevnetFail: RuntimeError", ["/prompt"])
    assert render(rig, flows.fail("error")) == expected


# ---- three in a row ---------------------------------------------------------------------------------------------


def test_after_three_faults_a_workflow_is_not_asked_for_while_the_others_are(rig: Rig, managed: dict[str, Any]) -> None:
    start_managed(rig, flows.fail("cuda"), managed)
    (spoiled,) = rig.ended(rig.create(parameters={}))
    assert spoiled["msg"] == "this miner's renderer failed on the task; please create it again"
    assert len(rig.logged("render_spoiled")) == 2  # and the third was answered
    assert rig.logged("workflow_paused", faults=3)
    until(lambda: not offered(rig, "4"), why="an offer without it")
    assert offered(rig, "5")
    (good,) = rig.ended(rig.create(workflow_id="5"))
    assert good["status"] == "finished"


def offered(rig: Rig, workflow_id: str) -> bool:
    """Whether the worker's last request offered this workflow."""
    asked = {"consumer_id": "c", "api_key": "k", "workflow_id": workflow_id}
    return bool(rig.session.post(f"{rig.devnet.url}/resource_request", json=asked, timeout=30).status_code == 200)


def test_then_one_canary_at_a_time_until_one_succeeds() -> None:
    health = Health()
    for _ in range(Health.FAULTS_UNTIL_TRIAL):
        assert health.offered(now=0.0, in_hand=True)
        health = health.after_fault(now=0.0)
    assert not health.offered(now=Health.FIRST_PAUSE - 1, in_hand=False)
    assert health.offered(now=Health.FIRST_PAUSE, in_hand=False)
    assert not health.offered(now=Health.FIRST_PAUSE, in_hand=True)
    worse = health.after_fault(now=Health.FIRST_PAUSE)
    assert not worse.offered(now=2.9 * Health.FIRST_PAUSE, in_hand=False)
    assert worse.offered(now=3 * Health.FIRST_PAUSE, in_hand=False)
