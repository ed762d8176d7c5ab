"""What the process lives through, and what ends it: signals while something hangs, and a GPU that is gone."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from miner.comfy import process_tree
from miner.worker.supervisor import EXIT_FORCED, EXIT_NO_COMFYUI
from tests.support.paths import ROOT
from tests.support.testbed import Process, Testbed, free_port, until

# ---- signals ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(testbed: Testbed, managed: dict[str, Any]) -> Iterator[Callable[[str], Process]]:
    """A worker with its own ComfyUI, in which something hangs."""
    testbed.start_devnet()
    testbed.start_worker("", **managed).kill()
    (testbed.folder / "worker.log").unlink()
    started: list[Process] = []

    def start(what: str) -> Process:
        command = [sys.executable, "-m", "tests.system.worker.with_a_hang", str(testbed.folder / "config.toml"), what]
        started.append(Process(command, testbed.folder / "worker.log", env={"PYTHONPATH": str(ROOT)}).start())
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_two_signals_end_a_miner_of_which_a_thread_hangs(testbed: Testbed, hanging: Callable[[str], Process]) -> None:
    """In C code, where nothing can interrupt it. The journal keeps the task; ComfyUI does not outlive the miner."""
    worker = hanging("picture")
    task_id = testbed.create()
    assert worker.first_line() == "hangs"
    (comfyui,) = testbed.logged("comfyui_started")
    worker.send(signal.SIGTERM)
    until(lambda: testbed.logged("draining"), why="the drain")
    worker.send(signal.SIGTERM)
    assert worker.popen is not None
    assert worker.popen.wait(60) == EXIT_FORCED
    (given_up,) = testbed.logged("giving_up")
    assert given_up["hangs"] == ["0-prepare", "0-render", "0-deliver", "0-heartbeat"]
    assert process_tree.find_process(comfyui["pid"]) is None
    testbed.restart_worker()
    (task,) = testbed.ended(task_id)
    assert task["status"] == "finished"


@pytest.mark.parametrize("where", ["lock", "mutex"])
def test_the_third_signal_ends_a_miner_whose_main_thread_hangs(hanging: Callable[[str], Process], where: str) -> None:
    worker = hanging(where)
    assert worker.first_line() == "hangs"
    assert worker.popen is not None
    for _ in range(2):
        worker.send(signal.SIGTERM)
        time.sleep(0.2)  # two of the same that arrive at once are one
        assert worker.popen.poll() is None
    worker.send(signal.SIGTERM)
    assert worker.popen.wait(20) == EXIT_FORCED


# ---- a GPU that is gone -----------------------------------------------------------------------------------------

NO_DRIVER = "raise RuntimeError('Found no NVIDIA driver on your system.')"
NEVER = "import threading; threading.Event().wait()"
LIMIT = 4.0  # seconds


def probe(port: int, path: str) -> tuple[int, list[str]]:
    """The status and the reasons; 0 while nobody listens."""
    try:
        reply = requests.get(f"http://127.0.0.1:{port}{path}", timeout=10)
    except requests.ConnectionError:
        return 0, []
    return reply.status_code, [reason["says"] for reason in reply.json()["reasons"]]


@pytest.mark.parametrize("program", [NO_DRIVER, NEVER], ids=["dies", "hangs"])
def test_without_its_comfyui_the_miner_says_so_and_exits(
    testbed: Testbed, managed: dict[str, Any], program: str
) -> None:
    """So that what supervises it makes it anew."""
    Path(managed["comfyui__home"], "main.py").write_text(program)
    testbed.start_devnet()
    port = free_port()
    worker = testbed.start_worker(
        "",
        **managed,
        comfyui__start_timeout=1.0,
        comfyui__give_up_after=LIMIT,
        status__enabled=True,
        status__port=port,
    )
    until(lambda: probe(port, "/healthz")[0] == 200, why="a miner that lives")
    _, reasons = until(lambda: (found := probe(port, "/healthz"))[0] == 503 and found, why="its end")
    assert "no ComfyUI could be started" in reasons[0]
    assert worker.popen is not None
    assert worker.popen.wait(60) == EXIT_NO_COMFYUI
    assert testbed.logged("comfyui_given_up")


def test_an_external_comfyui_that_is_away_is_for_its_owner(testbed: Testbed) -> None:
    testbed.start_devnet()
    port = free_port()
    testbed.start_worker(
        f"http://127.0.0.1:{free_port()}", comfyui__give_up_after=0.5, status__enabled=True, status__port=port
    )
    until(lambda: len(testbed.logged("comfyui_not_ready")) >= 3 and probe(port, "/healthz")[0], why="some attempts")
    assert (probe(port, "/healthz")[0], probe(port, "/readyz")[0]) == (200, 503)
    assert testbed.worker.stop() == 0
