"""A ComfyUI on another host: with another system's paths, and another clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.scripted_comfyui import INFO, ScriptedComfyUI, success
from tests.support.testbed import Testbed, until

START = 1_600_000_000_000  # milliseconds, years ago


@pytest.fixture
def comfyui() -> Iterator[ScriptedComfyUI]:
    with ScriptedComfyUI() as comfyui:
        yield comfyui


def took(seconds: float) -> dict[str, Any]:
    """A success, as a ComfyUI says it whose clock is years behind."""
    stamps = {"execution_start": START, "execution_success": START + round(seconds * 1000)}
    messages = [[kind, {"prompt_id": "p", "timestamp": at}] for kind, at in stamps.items()]
    return {**success(), "status": {"status_str": "success", "completed": True, "messages": messages}}


def test_a_comfyui_on_windows_renders_with_a_lora_in_a_folder(testbed: Testbed, comfyui: ScriptedComfyUI) -> None:
    comfyui.slash = "\\"
    lora = {"input": {"required": {"lora_name": [["sub\\line.safetensors", "plain.safetensors"], {}]}}, "output": []}
    comfyui.nodes = {**INFO, "LoraLoader": lora}
    graph = {
        "load": {"class_type": "LoadImage", "inputs": {"image": ""}},
        "lora": {"class_type": "LoraLoader", "inputs": {"lora_name": ""}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["load", 0], "filename_prefix": "x"}},
    }
    parameters = '[parameters.lora]\ntype = "lora"\nrequired = true\nbind = ["lora.lora_name"]\n'
    testbed.add_workflow("styled", graph, parameters=parameters)
    testbed.start_devnet()
    testbed.start_worker(comfyui.url, workflows={"4": ["styled"]})
    names = ("sub/line", "sub\\line.safetensors", "plain")
    tasks = testbed.ended(*(testbed.create(parameters={"lora": name}) for name in names))
    assert [(task["status"], task["msg"]) for task in tasks] == [("finished", "")] * 3
    sent = [request.json()["prompt"]["lora"]["inputs"]["lora_name"] for request in comfyui.asked("/prompt")]
    assert sent == ["sub\\line.safetensors", "sub\\line.safetensors", "plain.safetensors"]


@pytest.mark.parametrize(
    ("end", "least", "most"),
    [
        (took(0.05), 0.05, 0.05),
        (took(0.0), 0.0, 0.0),  # all cached
        (took(3600.0), 0.001, 60.0),  # its clock was set forward meanwhile: longer than the task is here
        (success(), 0.001, 60.0),  # it says nothing
    ],
    ids=["its own clock", "cached", "clock set", "no clock"],
)
def test_a_render_takes_what_comfyui_says(
    testbed: Testbed, comfyui: ScriptedComfyUI, end: dict[str, Any], least: float, most: float
) -> None:
    """This one has no event stream, so its ends are noticed late."""
    comfyui.end = end
    graph = {
        "load": {"class_type": "LoadImage", "inputs": {"image": ""}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["load", 0], "filename_prefix": "x"}},
    }
    testbed.add_workflow("plain", graph)
    testbed.start_devnet()
    testbed.start_worker(comfyui.url, workflows={"4": ["plain"]})
    testbed.ended(testbed.create(parameters={}))
    (line,) = until(lambda: testbed.logged("task_done"), why="its line in the log")
    assert least <= line.get("render_s", 0.0) <= most
