"""Machine faults: ComfyUI is restarted, the task rendered again, a failing workflow paused."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import Any

import pytest

from miner.task.blame import told as told_of
from tests.support import flows
from tests.support.relay import Relay
from tests.support.testbed import Testbed, until


def start_managed(
    testbed: Testbed, graph: flows.Graph, managed: dict[str, Any], *, timeout: float = 120.0, **settings: Any
) -> None:
    testbed.start_devnet()
    testbed.add_workflow("flow", graph, timeout=timeout)
    testbed.start_worker("", workflows={"4": ["flow"], "5": ["upscaler-lanczos"]}, **managed, **settings)


def processes(testbed: Testbed) -> int:
    """How often ComfyUI was started."""
    return len(testbed.logged("comfyui_started"))


# ---- no folder for a result -------------------------------------------------------------------------------------


def test_a_result_without_a_folder_is_retried(testbed: Testbed) -> None:
    testbed.start_devnet()
    testbed.start_worker(testbed.start_engine())
    testbed.ended(testbed.create())
    folder = testbed.folder / "state" / "lane-0"
    until(lambda: not list(folder.iterdir()), why="the cleanup")
    folder.rmdir()
    folder.touch()
    task_id = testbed.create()
    until(lambda: testbed.logged("upload_failed"), why="a failed attempt")
    folder.unlink()
    (task,) = testbed.ended(task_id)
    assert (task["status"], testbed.logged("task_crashed")) == ("finished", [])


# ---- a process that is sick -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cuda", "exit"])
def test_a_broken_comfyui_is_restarted_and_the_task_rendered_again(
    testbed: Testbed, managed: dict[str, Any], kind: str
) -> None:
    """`exit` ends the executing thread, while HTTP goes on answering and the queue stands still: that shows once the
    workflow's own time is over, which is less than the task's."""
    start_managed(testbed, flows.fail(kind, times=1), managed, timeout=3.0, comfyui__stall_timeout=1.0)
    (task,) = testbed.ended(testbed.create(parameters={}, timeout_seconds=120.0))
    assert task["status"] == "finished", task["msg"]
    assert processes(testbed) == 2


def test_a_long_silent_node_is_not_taken_for_a_dead_thread(testbed: Testbed, managed: dict[str, Any]) -> None:
    """It uses neither CPU nor GPU, and says nothing for many times `stall_timeout`."""
    start_managed(testbed, flows.wait(6.0, interruptible=False), managed, comfyui__stall_timeout=0.5)
    (task,) = testbed.ended(testbed.create(parameters={}))
    assert (task["status"], processes(testbed)) == ("finished", 1)


def test_comfyui_is_restarted_if_a_prompt_ignores_an_interrupt(testbed: Testbed, managed: dict[str, Any]) -> None:
    start_managed(testbed, flows.wait(600.0, interruptible=False), managed, comfyui__interrupt_grace=1.0)
    deaf = testbed.create(parameters={})
    until(lambda: testbed.logged("task_step", step="prompted"), why="the prompt")
    testbed.cancel(deaf)
    (good,) = testbed.ended(testbed.create(workflow_id="5"))
    assert good["status"] == "finished"
    assert processes(testbed) == 2
    assert testbed.task(deaf)["answers"] == []


def test_a_comfyui_killed_during_a_render_is_restarted_and_the_task_finished(
    testbed: Testbed, managed: dict[str, Any]
) -> None:
    start_managed(testbed, flows.wait(600.0, until="gate"), managed)
    task_id = testbed.create(parameters={})
    until(lambda: testbed.logged("task_step", step="prompted"), why="the prompt")
    kill_engine(testbed)
    (testbed.folder / "state" / "comfyui-default" / "input" / "gate").touch()
    (task,) = testbed.ended(task_id)
    assert task["status"] == "finished"
    assert processes(testbed) == 2
    (spoiled,) = testbed.logged("render_spoiled")
    assert (spoiled["fault"], "when memory runs out" in spoiled["reason"]) == ("memory", True)


def test_a_comfyui_that_hangs_during_a_render_is_restarted_and_the_task_finished(
    testbed: Testbed, managed: dict[str, Any]
) -> None:
    """Stopped for good, it takes connections and answers none; that is noticed when it was silent for long enough."""
    start_managed(testbed, flows.wait(600.0, until="gate"), managed)
    task_id = testbed.create(parameters={})
    until(lambda: testbed.logged("task_step", step="prompted"), why="the prompt")
    (started,) = testbed.logged("comfyui_started")
    os.kill(started["pid"], signal.SIGSTOP)
    (testbed.folder / "state" / "comfyui-default" / "input" / "gate").touch()
    (task,) = testbed.ended(task_id)
    assert task["status"] == "finished"
    assert processes(testbed) == 2


def test_a_comfyui_that_dies_while_idle_is_restarted(testbed: Testbed, managed: dict[str, Any]) -> None:
    """Before the miner leases a task."""
    start_managed(testbed, flows.wait(0.0), managed)
    until(lambda: testbed.logged("comfyui_ready"), why="a ComfyUI")
    kill_engine(testbed)
    until(lambda: processes(testbed) == 2, why="a new process", patience=20.0)


def test_a_comfyui_that_outlived_its_miner_is_kept_with_its_prompt(testbed: Testbed, managed: dict[str, Any]) -> None:
    start_managed(testbed, flows.wait(600.0, until="gate"), managed)
    task_id = testbed.create(parameters={})
    until(lambda: testbed.logged("task_step", step="prompted"), why="the prompt")
    testbed.worker.kill()
    testbed.restart_worker()
    until(lambda: testbed.logged("task_picked_up", step="prompted"), why="the prompt's recovery")
    (testbed.folder / "state" / "comfyui-default" / "input" / "gate").touch()
    (task,) = testbed.ended(task_id)
    assert task["status"] == "finished"
    assert (processes(testbed), len(testbed.logged("comfyui_adopted"))) == (1, 1)


def kill_engine(testbed: Testbed) -> None:
    (started,) = testbed.logged("comfyui_started")
    os.kill(started["pid"], signal.SIGKILL)


# ---- too little memory ------------------------------------------------------------------------------------------


def render(testbed: Testbed, graph: flows.Graph) -> tuple[str, str, list[str]]:
    """A task's status and message, and what ComfyUI was told meanwhile."""
    testbed.start_devnet()
    testbed.add_workflow("flow", graph)
    with closing(Relay(testbed.start_engine())) as comfyui:
        testbed.start_worker(comfyui.url, workflows={"4": ["flow"]})
        (task,) = testbed.ended(testbed.create(parameters={}))
        told = [line.decode().split()[1] for line in comfyui.seen if line.startswith((b"POST /prompt", b"POST /free"))]
        testbed.worker.kill()
    return task["status"], task["msg"], told


def test_out_of_memory_is_retried_once_after_free(testbed: Testbed) -> None:
    assert render(testbed, flows.fail("out-of-memory", times=1)) == ("finished", "", ["/prompt", "/free", "/prompt"])


def test_out_of_memory_twice_is_answered(testbed: Testbed) -> None:
    status, msg, told = render(testbed, flows.fail("out-of-memory"))
    assert (status, msg) == ("failed", told_of("memory"))
    assert told[:3] == ["/prompt", "/free", "/prompt"]


# ---- three in a row ---------------------------------------------------------------------------------------------


def test_after_three_faults_only_the_other_workflows_are_advertised(testbed: Testbed, managed: dict[str, Any]) -> None:
    start_managed(testbed, flows.fail("cuda"), managed)
    (spoiled,) = testbed.ended(testbed.create(parameters={}))
    assert spoiled["msg"] == "this miner's renderer failed on the task; please create it again"
    assert len(testbed.logged("render_spoiled")) == 2  # and the third was answered
    assert testbed.logged("workflow_paused", faults=3)
    until(lambda: not offered(testbed, "4"), why="an offer without it")
    assert offered(testbed, "5")
    (good,) = testbed.ended(testbed.create(workflow_id="5"))
    assert good["status"] == "finished"


def offered(testbed: Testbed, workflow_id: str) -> bool:
    """Whether the worker's last request advertised this workflow."""
    asked = {"consumer_id": "c", "api_key": "k", "workflow_id": workflow_id}
    return bool(
        testbed.session.post(f"{testbed.devnet.url}/resource_request", json=asked, timeout=30).status_code == 200
    )
