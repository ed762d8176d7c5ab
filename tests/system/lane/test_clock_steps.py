"""A step of the machine's clock changes no time limit, no pause and no duration."""

from __future__ import annotations

import time

import pytest

from tests.support import flows
from tests.support.clock_steps import SteppingClock
from tests.support.testbed import Testbed, free_port, until

HOUR = 3600
SOON = 120.0  # seconds; far below a step, far above what a test takes
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])


@pytest.fixture
def clock(testbed: Testbed) -> SteppingClock:
    """Of a worker with a workflow that renders until the file `go` is among the engine's inputs."""
    clock = SteppingClock(testbed.folder)
    testbed.start_devnet()
    testbed.add_workflow("gated", flows.wait(HOUR, until="go"), timeout=HOUR / 2)
    testbed.port = free_port()
    testbed.start_worker(
        testbed.start_engine(),
        workflows={"4": ["gated"]},
        environ=clock.environ,
        sequencer__wait=0.0,
        status__enabled=True,
        status__port=testbed.port,
    )
    until(lambda: testbed.devnet.requests("miner_request"), why="the first request")
    return clock


def rendering(testbed: Testbed) -> str:
    """A task in mid-render; returns its id."""
    task_id = testbed.create(parameters={})
    until(lambda: testbed.queue()["queue_running"], why="the render")
    return task_id


def live_on(testbed: Testbed) -> None:
    """Wait for a few requests more, so that every loop has met the new time."""
    seen = len(testbed.devnet.requests("miner_request"))
    until(lambda: len(testbed.devnet.requests("miner_request")) > seen + 3, why="further requests")


def finish(testbed: Testbed, task_id: str) -> None:
    """End the render; the task must succeed, with durations that no step is in."""
    (testbed.folder / "engine" / "input" / "go").touch()
    (task,) = testbed.ended(task_id)
    assert (task["status"], task["msg"]) == ("finished", "")
    assert 0 < task["inference_latency"] < SOON
    assert 0 <= task["upload_latency"] < SOON
    (done,) = until(lambda: testbed.logged("task_done"), why="the task's line")
    assert 0 < done["total_s"] < SOON


@STEPS
def test_in_the_middle_of_a_render(testbed: Testbed, clock: SteppingClock, step: int) -> None:
    task_id = rendering(testbed)
    clock.step(step)
    live_on(testbed)
    now = testbed.session.get(f"http://127.0.0.1:{testbed.port}/api/now", timeout=10).json()
    (task,) = now["lanes"][0]["tasks"]
    for shown in (now["started_at"], now["answered_at"], task["leased_at"], task["since"]):
        assert 0 <= time.time() + step - shown + 1 < SOON  # in the new time, for people
    finish(testbed, task_id)


@STEPS
def test_while_idle_and_before_a_restart(testbed: Testbed, clock: SteppingClock, step: int) -> None:
    clock.step(step)
    live_on(testbed)
    task_id = rendering(testbed)
    testbed.worker.kill()
    testbed.restart_worker()
    until(lambda: testbed.logged("task_picked_up"), why="the recovery")
    live_on(testbed)
    finish(testbed, task_id)
