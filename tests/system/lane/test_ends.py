"""How a worker ends: drained, interrupted, or by a bug. What it leaves unanswered, the next start answers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from miner.worker.supervisor import EXIT_BUG
from tests.support.scene import Scene, scene_in
from tests.support.testbed import Process, Rig, until
from tests.system.lane import flows


def test_a_bug_in_a_loop_ends_the_process_with_its_own_code(rig: Rig) -> None:
    """So that who started it can start it again; a process that lives and does nothing helps nobody."""
    rig.start_devnet()
    engine = rig.start_engine()
    rig.start_worker(engine)
    rig.worker.kill()
    command = [sys.executable, "-m", "tests.system.lane.with_a_bug", str(rig.folder / "config.toml")]
    broken = Process(command, rig.folder / "broken.log").start()
    try:
        task_id = rig.create()
        assert broken.popen is not None
        assert broken.popen.wait(30) == EXIT_BUG, (rig.folder / "broken.log").read_text()
    except subprocess.TimeoutExpired:
        pytest.fail("it still runs, 30 s after one of its loops ended")
    finally:
        broken.kill()
    assert "ZeroDivisionError" in (rig.folder / "broken.log").read_text()
    rig.restart_worker()
    (task,) = rig.ended(task_id)  # the journal had it
    assert task["status"] == "finished"


def test_two_signals_end_it_though_an_upload_keeps_failing(scene: Scene) -> None:
    rig = scene.rig
    scene.begin("rendered")
    rig.devnet.fault("fail", "store_put")
    scene.held.release()
    until(lambda: rig.logged("upload_failed"), why="a failed upload")
    rig.worker.send(signal.SIGTERM)
    until(lambda: rig.logged("draining"), why="the drain")
    assert rig.worker.stop(timeout=20.0) == 0
    rig.devnet.clear_faults()
    rig.restart_worker()
    assert scene.ended()["status"] == "finished"


def test_two_signals_end_it_though_the_sequencer_takes_no_answer(scene: Scene) -> None:
    rig = scene.rig
    scene.begin("answered")
    rig.devnet.fault("fail", "miner_submit")
    scene.held.release()
    until(lambda: rig.logged("answer_not_taken"), why="a submission in vain")
    rig.worker.send(signal.SIGTERM)
    until(lambda: rig.logged("draining"), why="the drain")
    assert rig.worker.stop(timeout=20.0) == 0
    rig.devnet.clear_faults()
    rig.restart_worker()
    assert scene.ended()["status"] == "finished"


def test_a_lane_that_drains_takes_nothing_new_with_its_heartbeats(scene: Scene) -> None:
    """A one-lease sequencer that has taken the answer, whose reply is lost, has room for another task: the heartbeat
    must not ask for it, for draining means to take nothing new at once."""
    rig = scene.rig
    scene.begin("rendering")
    before = len(rig.devnet.requests("miner_request"))
    until(lambda: len(rig.devnet.requests("miner_request")) >= before + 2, why="`running`")
    reply = scene.sequencer.hold("POST /miner_submit", reply=True)
    scene.held.release()
    reply.wait()
    rig.worker.send(signal.SIGTERM)
    until(lambda: rig.logged("draining"), why="the drain")
    late = rig.create(parameters={"image": f"{scene.inputs.url}/cell-1.png"})
    before = len(rig.devnet.requests("miner_request"))
    until(lambda: len(rig.devnet.requests("miner_request")) >= before + 2, why="heartbeats")
    reply.release()
    assert rig.worker.stop() == 0
    assert rig.task(late)["status"] == "waiting"
    assert rig.task(scene.task_id)["status"] == "finished"


def test_a_lease_that_arrives_as_the_drain_begins_is_finished(tmp_path: Path) -> None:
    """It was asked for before the signal, so it is in hand, and there is time."""
    with scene_in(tmp_path, sequencer__wait=0.0) as scene:
        scene.begin("leased")
        scene.rig.worker.send(signal.SIGTERM)
        until(lambda: scene.rig.logged("draining"), why="the drain")
        scene.held.release()
        until(lambda: not scene.rig.worker.alive, why="the worker's end")
        task = scene.rig.task(scene.task_id)
    assert (task["status"], task["msg"]) == ("finished", "")


def test_a_log_that_cannot_be_written_stops_nothing(rig: Rig) -> None:
    """Where the log goes to a file, it is on the disk that gets full."""
    rig.start_devnet()
    rig.start_worker(rig.start_engine())
    rig.ended(rig.create())
    rig.worker.kill()
    rig.worker.log = Path("/dev/full")
    rig.restart_worker()
    (task,) = rig.ended(rig.create(), patience=25.0)
    assert task["status"] == "finished"


def test_the_third_signal_ends_it_at_once(rig: Rig) -> None:
    rig.start_devnet()
    rig.add_workflow("deaf", flows.wait(600.0, interruptible=False))
    engine = rig.start_engine("--test-nodes")
    worker = rig.start_worker(engine, workflows={"4": ["deaf"]}, comfyui__interrupt_grace=600.0)
    rig.create(parameters={})
    until(lambda: rig.logged("task_step", step="prompted"), why="the prompt")
    worker.send(signal.SIGTERM)
    until(lambda: rig.logged("draining"), why="the drain")
    worker.send(signal.SIGTERM)
    until(lambda: rig.logged("prompt_cancelled"), why="the interrupt")
    assert worker.stop() == 1


def test_nothing_is_left_of_a_worker_that_was_stopped(rig: Rig) -> None:
    rig.start_devnet()
    worker = rig.start_worker(rig.start_engine())
    rig.ended(rig.create())
    pid = worker.popen.pid
    assert worker.stop() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert list((rig.folder / "state" / "lane-0").iterdir()) == []
