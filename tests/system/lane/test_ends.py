"""How a worker ends: drained, canceled, or by a bug; the next start answers the rest."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from miner.worker.lane.answers import BUG
from miner.worker.supervisor import EXIT_BUG
from tests.support import flows
from tests.support.relayed_testbed import RelayedTestbed, Step
from tests.support.scripted_server import reply
from tests.support.testbed import Process, Testbed, until


@pytest.fixture
def broken(testbed: Testbed) -> Iterator[Callable[[str, int], Process]]:
    """A worker with a bug in it, at a devnet and an engine."""
    testbed.start_devnet()
    testbed.start_worker(testbed.start_engine())
    testbed.worker.kill()
    command = [sys.executable, "-m", "tests.system.lane.with_a_bug", str(testbed.folder / "config.toml")]
    log = testbed.folder / "broken.log"
    with ExitStack() as stack:
        yield lambda where, times: stack.enter_context(
            closing_by_kill(Process([*command, where, str(times)], log).start())
        )


@contextmanager
def closing_by_kill(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.kill()


ALWAYS = 1_000_000


def lines_of(process: Process, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_bug_in_a_task_ends_only_that_task(testbed: Testbed, broken: Callable[[str, int], Process]) -> None:
    process = broken("task", ALWAYS)
    for _ in range(2):
        (task,) = testbed.ended(testbed.create())
        assert (task["status"], task["msg"]) == ("failed", BUG)
    assert process.popen is not None
    assert process.popen.poll() is None
    crashed = lines_of(process, "task_crashed")
    assert len(crashed) == 2
    assert "ZeroDivisionError" in crashed[0]["exception"]


@pytest.mark.parametrize(
    ("where", "event"),
    [
        *((loop, "loop_crashed") for loop in ("poll", "refresh", "heartbeat", "render", "deliver")),
        ("answer", "answer_crashed"),
        ("close", "answer_crashed"),
        ("watch", "watch_crashed"),
    ],
)
def test_a_bug_outside_of_a_task_ends_nothing(
    testbed: Testbed, broken: Callable[[str, int], Process], where: str, event: str
) -> None:
    process = broken(where, 2)
    first, second = testbed.create(), testbed.create()
    assert {task["status"] for task in testbed.ended(first, second)} == {"finished"}
    crashed = until(lambda: lines_of(process, event), why="the crash")
    assert "ZeroDivisionError" in crashed[0]["exception"]
    assert process.popen is not None
    assert process.popen.poll() is None
    assert testbed.devnet.stats()["violations"] == 0


@pytest.mark.parametrize("where", ["poll", "refresh", "heartbeat"])
def test_a_bug_outside_of_a_task_that_repeats_without_end_exits_70(
    testbed: Testbed, broken: Callable[[str, int], Process], where: str
) -> None:
    """So that the service manager restarts it."""
    task_id = testbed.create()
    process = broken(where, ALWAYS)
    assert process.popen is not None
    assert process.popen.wait(60) == EXIT_BUG, process.log.read_text()
    assert "ZeroDivisionError" in process.log.read_text()
    testbed.restart_worker()
    (task,) = testbed.ended(task_id)
    assert task["status"] == "finished"


@pytest.mark.parametrize(
    ("step", "route", "event"),
    [("rendered", "store_put", "upload_failed"), ("answered", "miner_submit", "answer_not_accepted")],
)
def test_two_signals_stop_a_worker_whose_uploads_keep_failing(
    relayed: RelayedTestbed, step: Step, route: str, event: str
) -> None:
    relayed.begin(step)
    relayed.devnet.fault("fail", route)
    relayed.held.release()
    until(lambda: relayed.logged(event), why="an attempt in vain")
    relayed.worker.send(signal.SIGTERM)
    until(lambda: relayed.logged("draining"), why="the drain")
    assert relayed.worker.stop(timeout=20.0) == 0
    relayed.devnet.clear_faults()
    relayed.restart_worker()
    assert relayed.end()["status"] == "finished"


def test_heartbeats_of_a_draining_lane_lease_nothing(relayed: RelayedTestbed) -> None:
    """A one-lease sequencer that has taken the answer, whose reply is lost, has room for another task: the heartbeat
    must not ask for it, for draining means to take nothing new at once."""
    relayed.begin("rendering")
    before = len(relayed.devnet.requests("miner_request"))
    until(lambda: len(relayed.devnet.requests("miner_request")) >= before + 2, why="`running`")
    reply = relayed.sequencer.hold("POST /miner_submit", reply=True)
    relayed.held.release()
    reply.wait()
    relayed.worker.send(signal.SIGTERM)
    until(lambda: relayed.logged("draining"), why="the drain")
    late = relayed.create(parameters={"image": f"{relayed.inputs.url}/cell-1.png"})
    before = len(relayed.devnet.requests("miner_request"))
    until(lambda: len(relayed.devnet.requests("miner_request")) >= before + 2, why="heartbeats")
    reply.release()
    assert relayed.worker.stop() == 0
    assert relayed.task(late)["status"] == "waiting"
    assert relayed.task(relayed.task_id)["status"] == "finished"


def test_a_lease_that_arrives_as_the_drain_begins_is_finished(tmp_path: Path) -> None:
    """It was asked for before the signal, so it is in hand, and there is time."""
    with RelayedTestbed(tmp_path, sequencer__wait=0.0) as relayed:
        relayed.begin("leased")
        relayed.worker.send(signal.SIGTERM)
        until(lambda: relayed.logged("draining"), why="the drain")
        relayed.held.release()
        until(lambda: not relayed.worker.alive, why="the worker's end")
        task = relayed.task(relayed.task_id)
    assert (task["status"], task["msg"]) == ("finished", "")


@pytest.mark.parametrize("when", ["working", "acknowledging"])
def test_a_lease_that_a_heartbeat_brings_during_a_drain_is_answered(relayed: RelayedTestbed, when: str) -> None:
    """The sequencer's doing: it was asked for nothing. The other loops may have ended by then."""
    relayed.begin("rendering")
    relayed.worker.send(signal.SIGTERM)
    until(lambda: relayed.logged("draining"), why="the drain")
    acknowledgement = relayed.sequencer.hold("POST /miner_submit", reply=True)
    if when == "acknowledging":
        relayed.held.release()
        acknowledgement.wait()
    heartbeat = relayed.sequencer.hold("POST /miner_request", reply=True)
    heartbeat.wait()
    heartbeat.drop(instead=reply({"task_id": "late", "task_type": "upscaler", "task_details": {"parameters": {}}}))
    until(lambda: relayed.logged("task_refused", task_id="late"), why="an answer")
    relayed.held.release()
    acknowledgement.release()
    until(lambda: not relayed.worker.alive, why="the worker's end")
    assert relayed.task(relayed.task_id)["status"] == "finished"


def test_an_unwritable_log_stops_nothing(testbed: Testbed) -> None:
    """Such as a log file on a full disk."""
    testbed.start_devnet()
    testbed.start_worker(testbed.start_engine())
    testbed.ended(testbed.create())
    testbed.worker.kill()
    testbed.worker.log = Path("/dev/full")
    testbed.restart_worker()
    (task,) = testbed.ended(testbed.create(), patience=25.0)
    assert task["status"] == "finished"


def test_the_third_signal_exits_at_once(testbed: Testbed) -> None:
    testbed.start_devnet()
    testbed.add_workflow("deaf", flows.wait(600.0, interruptible=False))
    engine = testbed.start_engine()
    worker = testbed.start_worker(engine, workflows={"4": ["deaf"]}, comfyui__interrupt_grace=600.0)
    testbed.create(parameters={})
    until(lambda: testbed.logged("task_step", step="prompted"), why="the prompt")
    worker.send(signal.SIGTERM)
    until(lambda: testbed.logged("draining"), why="the drain")
    worker.send(signal.SIGTERM)
    until(lambda: testbed.logged("prompt_cancelled"), why="the interrupt")
    assert worker.stop() == 1


def test_a_stopped_worker_leaves_nothing_behind(testbed: Testbed) -> None:
    testbed.start_devnet()
    worker = testbed.start_worker(testbed.start_engine())
    testbed.ended(testbed.create())
    pid = worker.popen.pid
    assert worker.stop() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert list((testbed.folder / "state" / "lane-0").iterdir()) == []
