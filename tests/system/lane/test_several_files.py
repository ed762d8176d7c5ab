"""A node that writes several files for one task: told as this machine's fault, or one of them is the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.scripted_comfyui import OWN, ScriptedComfyUI
from tests.support.testbed import Testbed

GRAPH = {
    "load": {"class_type": "LoadImage", "inputs": {"image": ""}},
    "save": {"class_type": "SaveImage", "inputs": {"images": ["load", 0], "filename_prefix": "x"}},
}


def wrote(*names: str) -> dict[str, Any]:
    files = [{"filename": name, "subfolder": OWN, "type": "output"} for name in names]
    return {"status": {"status_str": "success"}, "outputs": {"save": {"images": files}}}


@pytest.fixture
def comfyui() -> Iterator[ScriptedComfyUI]:
    with ScriptedComfyUI() as comfyui:
        comfyui.end = wrote("a_00001_.png", "a_00002_.png", "a_00003_.png")
        yield comfyui


def start(testbed: Testbed, comfyui: ScriptedComfyUI, *, take: str = "") -> None:
    testbed.add_workflow("several", GRAPH)
    manifest = testbed.workflows / "several" / "workflow.toml"
    if take:
        manifest.write_text(manifest.read_text().replace("[needs]", f'take = "{take}"\n[needs]'))
    testbed.start_devnet()
    testbed.start_worker(comfyui.url, workflows={"4": ["several"]})


def test_several_files_are_told_to_the_operator_and_none_is_delivered(
    testbed: Testbed, comfyui: ScriptedComfyUI
) -> None:
    start(testbed, comfyui)
    (task,) = testbed.ended(testbed.create(parameters={}))
    assert task["status"] == "failed"
    assert "this miner" in task["msg"]
    reasons = [str(event.get("reason", "")) for event in testbed.log()]
    assert any("the output node 'save' wrote 3 files, and a task has one result" in reason for reason in reasons)
    assert any("output.take" in str(event.get("hint", "")) for event in testbed.log())


@pytest.mark.parametrize(("take", "name"), [("first", "a_00001_.png"), ("last", "a_00003_.png")])
def test_the_manifest_may_say_which_one_is_delivered(
    testbed: Testbed, comfyui: ScriptedComfyUI, take: str, name: str
) -> None:
    start(testbed, comfyui, take=take)
    (task,) = testbed.ended(testbed.create(parameters={}))
    assert task["status"] == "finished", task["msg"]
    assert {request.query.partition("filename=")[2].partition("&")[0] for request in comfyui.asked("/view")} == {name}
