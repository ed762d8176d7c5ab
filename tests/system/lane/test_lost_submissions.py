"""A submission whose reply is lost: the prompt does not outlive its task in ComfyUI, whatever ended the task."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.support import flows
from tests.support.testbed import Testbed, until


def canceled(testbed: Testbed, task_id: str) -> None:
    testbed.cancel(task_id)
    until(lambda: testbed.logged("task_taken_away"), why="the news")


def late(testbed: Testbed, task_id: str) -> None:
    until(lambda: testbed.task(task_id)["status"] == "failed", why="the sequencer's limit")


def aborted(testbed: Testbed, _: str) -> None:
    for event in ("draining", "interrupting"):
        testbed.worker.send(signal.SIGTERM)
        until(lambda event=event: testbed.logged(event), why=event)


def refused(testbed: Testbed, _: str) -> None:
    """By a proxy, after ComfyUI has accepted it: the task is rendered again, under another prompt id."""


BAD = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("ends", "instead"),
    [(canceled, b""), (late, b""), (aborted, b""), (refused, BAD)],
    ids=["canceled", "late", "aborted", "refused"],
)
def test_a_prompt_whose_reply_was_lost_ends_with_its_task(
    testbed: Testbed, ends: Callable[[Testbed, str], None], instead: bytes
) -> None:
    testbed.start_devnet()
    testbed.add_workflow("gated", flows.wait(3600.0, until="gate"))
    relay = testbed.relay(testbed.start_engine())
    testbed.start_worker(relay.url, workflows={"4": ["gated"]}, comfyui__interrupt_grace=5.0)
    held = relay.hold("POST /prompt", reply=True)
    task_id = testbed.create(parameters={}, timeout_seconds=3.0 if ends is late else 600.0)
    held.wait()
    until(lambda: testbed.queue()["queue_running"], why="the render")
    ((_, prompt_id, *_),) = testbed.queue()["queue_running"]
    ends(testbed, task_id)
    held.drop(instead)

    def has_it() -> bool:
        queue = testbed.queue()
        return any(item[1] == prompt_id for item in (*queue["queue_running"], *queue["queue_pending"]))

    until(lambda: not has_it(), why="the end of the prompt", patience=25.0)
