"""An event stream that is connected and silent: noticed by the second task, mended, and no task waits for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from miner.worker.lane.hearing import MARGIN
from tests.support import flows
from tests.support.engine import make_home
from tests.support.relay import Hold, Relay
from tests.support.testbed import Testbed, until

ABOUT_A_PROMPT = '"prompt_id"'


def start(testbed: Testbed) -> Relay:
    testbed.start_devnet()
    testbed.add_workflow("plain", flows.plain())
    relay = testbed.relay(testbed.start_engine())
    testbed.start_worker(relay.url, workflows={"4": ["plain"]})
    until(lambda: testbed.logged("comfyui_ready"), why="ComfyUI")
    until(lambda: any(line.startswith(b"GET /ws") for line in relay.seen), why="the stream")
    connected = time.monotonic()
    until(lambda: time.monotonic() > connected + MARGIN, why="a stream that is older than the next prompt")
    return relay


def deafen(relay: Relay) -> Hold:
    """From the next message about a prompt on, nothing comes over the stream of one connection; it stays open."""
    return relay.hold("GET /ws", has=ABOUT_A_PROMPT, reply=True)


def done(testbed: Testbed, count: int) -> None:
    for _ in range(count):
        (task,) = testbed.ended(testbed.create(parameters={}))
        assert task["status"] == "finished", task["msg"]


def actions(testbed: Testbed) -> list[str]:
    return [event["action"] for event in testbed.logged("comfyui_deaf")]


def test_the_second_task_notices_and_the_operator_is_told_if_it_stays(testbed: Testbed) -> None:
    relay = start(testbed)
    holds = [deafen(relay), deafen(relay)]
    done(testbed, 1)
    assert actions(testbed) == []
    done(testbed, 1)
    until(lambda: actions(testbed) == ["reconnected"], why="the notice")
    until(lambda: sum(line.startswith(b"GET /ws") for line in relay.seen) == 2, why="another connection")
    for _ in range(8):  # those that were submitted before it was there, or too soon after, do not count
        done(testbed, 1)
        if len(actions(testbed)) > 1:
            break
    done(testbed, 2)
    assert actions(testbed) == ["reconnected", "told"]
    for hold in holds:
        hold.release()
    until(lambda: testbed.logged("comfyui_heard_again"), why="its voice")


def test_a_new_connection_can_mend_it(testbed: Testbed) -> None:
    relay = start(testbed)
    deafen(relay)
    done(testbed, 2)
    until(lambda: actions(testbed), why="the notice")
    done(testbed, 3)
    assert actions(testbed) == ["reconnected"]
    assert testbed.logged("comfyui_heard_again")


def test_frames_on_their_way_are_no_silence(testbed: Testbed) -> None:
    """They come after the history, from a server that waits for a slow reader; so nothing is counted."""
    relay = start(testbed)
    for _ in range(3):
        hold = deafen(relay)
        done(testbed, 1)
        hold.release()
        done(testbed, 1)  # and its frames are heard
    assert actions(testbed) == []


def test_instant_and_cached_renders_are_no_silence(testbed: Testbed) -> None:
    start(testbed)
    done(testbed, 6)
    assert actions(testbed) == []


@pytest.mark.parametrize("starts", [1, 9])
def test_a_managed_comfyui_is_restarted_once(
    testbed: Testbed, managed: dict[str, Any], tmp_path: Path, starts: int
) -> None:
    """`starts`: of ComfyUI, as often as it is deaf. If a restart does not help, the operator is told."""
    home = make_home(tmp_path / "deaf-home", "tests.support.deaf_engine")
    (home / "deaf").write_text("x" * starts)
    testbed.start_devnet()
    testbed.add_workflow("plain", flows.plain())
    testbed.start_worker("", workflows={"4": ["plain"]}, **{**managed, "comfyui__home": str(home)})
    until(lambda: testbed.logged("comfyui_ready"), why="ComfyUI")
    expected = ["reconnected", "restarted"]
    if starts > 1:
        expected.append("told")
    for _ in range(8):
        done(testbed, 1)
        if actions(testbed) == expected:
            break
    until(lambda: len(testbed.logged("comfyui_started")) == 2, why="the restart")
    done(testbed, 2)
    assert actions(testbed) == expected
    assert bool(testbed.logged("comfyui_heard_again")) == (starts == 1)
    assert not testbed.logged("comfyui_died")
