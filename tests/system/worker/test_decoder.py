"""The worker's decoder: what a picture does to it, no task and no signal waits for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from miner.worker.lane.shutdown import SHUTTING_DOWN
from tests.support import flows
from tests.support.testbed import Testbed, until


def decoders(testbed: Testbed) -> list[int]:
    """The pids of the worker's."""
    found = []
    for children in Path(f"/proc/{testbed.worker.popen.pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            if b"miner.media.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def stop_decoder(testbed: Testbed) -> int:
    """From now on it answers nothing."""
    (pid,) = until(lambda: decoders(testbed), why="a decoder that is ready before the first task")
    until(lambda: waits(pid), why="the end of its start")
    os.kill(pid, signal.SIGSTOP)
    return pid


def waits(pid: int) -> bool:
    """Whether it sleeps at each of ten looks; while it starts it does not, and on a busy machine that takes long."""
    for _ in range(10):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            return False
        time.sleep(0.03)
    return True


@pytest.fixture
def short(testbed: Testbed) -> Testbed:
    """With a workflow, id 5, whose tasks have six seconds."""
    testbed.start_devnet()
    name = testbed.add_workflow("short", flows.wait(0.1, loads=True), timeout=6.0, parameters=flows.IMAGE)
    testbed.start_worker(testbed.start_engine(), workflows={"4": ["upscaler-lanczos"], "5": [name]})
    return testbed


def test_a_decoder_that_hangs_ends_with_its_task_and_the_next_one_has_another(short: Testbed) -> None:
    pid = stop_decoder(short)
    began = time.monotonic()
    (task,) = short.ended(short.create(workflow_id="5"))
    assert task["status"] == "failed"
    assert time.monotonic() - began < 20.0
    (good,) = short.ended(short.create())
    assert good["status"] == "finished", good["msg"]
    assert pid not in decoders(short)
    assert short.worker.stop() == 0


def test_a_decoder_that_hangs_delays_no_abort(short: Testbed) -> None:
    stop_decoder(short)
    task_id = short.create()
    until(lambda: any(task["status"] == "running" for task in [short.task(task_id)]), why="the lease")
    pids = decoders(short)
    short.worker.send(signal.SIGTERM)
    until(lambda: short.logged("draining"), why="the drain")
    short.worker.send(signal.SIGTERM)
    assert short.worker.popen.wait(20) == 0
    assert short.task(task_id)["msg"] == SHUTTING_DOWN
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_no_decoder_outlives_a_worker_that_is_killed(short: Testbed) -> None:
    (pid,) = until(lambda: decoders(short), why="a decoder")
    short.worker.kill()
    until(lambda: not Path(f"/proc/{pid}").exists(), why="its end")
