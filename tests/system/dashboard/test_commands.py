"""`xalora-miner status`, `pause`, `resume`, `drain`, and the one sentence that all of them print."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

from miner.cli.status import render
from tests.support.dashboard_testbed import DashboardTestbed
from tests.support.testbed import MINER_ID, free_port, until


def run(*arguments, url, **options):
    command = [sys.executable, "-m", "miner", *arguments, "--url", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_status_for_scripts_is_one_object(testbed):
    shown = json.loads(run("status", "--json", url=testbed.url).stdout)
    assert set(shown) == {"now", "past", "health", "workflows"}
    assert shown["now"]["lanes"][0]["miner_id"] == MINER_ID


def test_status_for_people_has_the_page_s_sentence_and_the_task_with_its_bar(testbed):
    task_id = testbed.slow(600.0)
    sentence = until(
        lambda: (says := testbed.now()["says"]).startswith(f"rendering {task_id[:8]}… step") and says, why="the steps"
    )
    shown = run("status", url=testbed.url, env={**os.environ, "COLUMNS": "120"}).stdout
    assert sentence.rpartition(" step")[0] in shown
    assert "━" in shown or "─" in shown
    assert "last 24 hours" in shown
    testbed.cancel(task_id)


def test_status_in_a_terminal_is_live_until_it_is_interrupted(testbed):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "miner", "status", "--url", testbed.url]
    with subprocess.Popen(
        command, stdout=follower, stderr=follower, stdin=follower, env={**os.environ, "TERM": "xterm"}
    ) as live:
        os.close(follower)
        for which in ("the first picture", "another one"):
            until(lambda: b"waiting for a task" in os.read(leader, 4096), why=which)
        live.send_signal(2)
        assert live.wait(30) == 0
    os.close(leader)


def test_pause_and_resume_are_the_page_s_buttons(testbed):
    assert run("pause", url=testbed.url).stdout.startswith("paused: ")
    assert testbed.now()["state"] == "paused"
    assert run("resume", url=testbed.url).stdout.startswith("working: ")
    assert testbed.now()["state"] == "working"


def test_without_a_worker_it_says_what_to_do():
    ended = run("status", url=f"http://127.0.0.1:{free_port()}")
    assert ended.returncode == 1
    assert "no worker answers" in ended.stderr
    assert "xalora-miner run" in ended.stderr


def test_what_a_task_says_cannot_style_the_terminal(testbed):
    shown = json.loads(run("status", "--json", url=testbed.url).stdout)
    task = {
        "task_id": "[red]\x1b[2J",
        "workflow": "[bold]",
        "stage": "render",
        "share": 0.5,
        "since": 0.0,
        "usual_seconds": None,
    }
    shown["now"]["lanes"][0]["tasks"] = [task]
    from rich.console import Console

    console = Console(width=120, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(render(shown, at=10.0))
    assert "[red]" in capture.get()
    assert "\x1b[2J" not in capture.get()


def test_page_status_and_systemd_print_the_same_sentence_a_reload_keeps_the_pause_and_drain_ends_it(
    testbed, tmp_path, manager
):
    environ = {"NOTIFY_SOCKET": str(manager.address), "WATCHDOG_USEC": "400000"}
    options = {"workflows": {"nobody": ["upscaler-lanczos"]}, "environ": environ, "miner__id": MINER_ID + "-third"}
    with DashboardTestbed(tmp_path, beside=testbed, **options) as other:
        other.press("pause")
        sentence = other.now()["says"]
        assert sentence == "paused: not leasing"
        until(lambda: sentence in manager.told("STATUS"), why="systemd's STATUS")
        assert sentence in run("status", url=other.url).stdout
        config = other.folder / "config.toml"
        config.write_text(config.read_text().replace("[miner]\n", "[miner]\nprefetch = 0\n"))
        other.worker.send(signal.SIGHUP)
        until(lambda: len(other.logged("started")) == 2, why="the reload")
        assert other.now()["state"] == "paused"
        assert run("drain", url=other.url).stdout.startswith("draining: ")
        assert other.worker.popen.wait(30) == 0
