"""Following a prompt to its end."""

from __future__ import annotations

from datetime import datetime

from miner.comfy.follow import POLL
from tests.support.relayed_testbed import RelayedTestbed


def at(relayed: RelayedTestbed, step: str) -> datetime:
    (event,) = relayed.logged("task_step", task_id=relayed.task_id, step=step)
    return datetime.fromisoformat(event["timestamp"])


def test_a_prompt_that_ends_before_its_submission_returns_is_seen_at_once(relayed: RelayedTestbed) -> None:
    """Its events arrive while nobody follows it yet. Asking every POLL seconds is for events that were missed."""
    end = relayed.comfyui.hold("GET /ws", has='"node": null', reply=True)
    relayed.begin("prompted", acted=True)
    end.wait()
    end.release()
    relayed.held.release()
    assert relayed.end()["status"] == "finished"
    assert (at(relayed, "rendered") - at(relayed, "prompted")).total_seconds() < POLL - 0.5
