"""The end of a prompt is noticed, whatever came before it."""

from __future__ import annotations

from datetime import datetime

from miner.comfy.follow import POLL
from tests.support.scene import Scene


def at(scene: Scene, step: str) -> datetime:
    (event,) = scene.testbed.logged("task_step", task_id=scene.task_id, step=step)
    return datetime.fromisoformat(event["timestamp"])


def test_a_prompt_that_ends_before_its_submission_returns_is_seen_at_once(scene: Scene) -> None:
    """Its events arrive while nobody follows it yet. Asking every POLL seconds is for events that were missed."""
    end = scene.comfyui.hold("GET /ws", has='"node": null', reply=True)
    scene.begin("prompted", acted=True)
    end.wait()
    end.release()
    scene.held.release()
    assert scene.ended()["status"] == "finished"
    assert (at(scene, "rendered") - at(scene, "prompted")).total_seconds() < POLL - 0.5
