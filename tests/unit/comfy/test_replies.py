"""What ComfyUI says, in our words: one kind of slash, and its own times."""

from __future__ import annotations

from typing import Any

import pytest

from miner.comfy.replies import in_its_words, one_slash, parse_history, with_one_slash
from miner.task.stages import OutputFile
from tests.support.scripted_comfyui import success

START, DAY = 1_795_300_695_152, 86_400_000  # milliseconds


def stamped(kind: str, at: object) -> list[Any]:
    return [kind, {"prompt_id": "p", "timestamp": at}]


def ended(kind: str, *, after: int) -> list[list[Any]]:
    return [stamped("execution_start", START), stamped("execution_cached", START + 1), stamped(kind, START + after)]


@pytest.mark.parametrize(
    ("messages", "seconds"),
    [
        (ended("execution_success", after=61_500), 61.5),
        (ended("execution_error", after=500), 0.5),
        (ended("execution_interrupted", after=2_000), 2.0),
        (ended("execution_success", after=0), 0.0),  # all cached
        (ended("execution_success", after=-DAY), None),  # its clock was set back
        ([stamped("execution_start", START)], None),
        ([stamped("execution_success", START)], None),
        ([stamped("execution_start", "now"), stamped("execution_success", START)], None),
        ([stamped("execution_start", True), stamped("execution_success", True)], None),
        ([["execution_start", None], ["execution_success", 3], "?", []], None),
        (None, None),  # of an older version
    ],
)
def test_a_render_takes_what_comfyuis_own_clock_says(messages: Any, seconds: float | None) -> None:
    for status in ("success", "error"):
        entry = {"status": {"status_str": status, "messages": messages}}
        assert parse_history(entry).seconds == seconds


@pytest.mark.parametrize(
    "named",
    [
        {"subfolder": "xalora/id", "filename": "out.png"},
        {"subfolder": "xalora\\id", "filename": "out.png"},
        {"subfolder": "xalora\\id\\", "filename": "out.png"},
        {"subfolder": "./xalora//id", "filename": "out.png"},
        {"subfolder": "", "filename": "xalora\\id\\out.png"},
        {"subfolder": "xalora", "filename": "id/out.png"},
    ],
)
def test_both_slashes_are_one_in_an_output(named: dict[str, Any]) -> None:
    expected = OutputFile(filename="out.png", subfolder="xalora/id", kind="output")
    assert parse_history(success(**named)).outputs == {"save": (expected,)}


def specified(*names: str, form: str) -> Any:
    match form:
        case "older":
            return [list(names), {}]
        case "newer":
            return ["COMBO", {"options": list(names)}]
    inner = {"required": {"name": ["COMBO", {"options": list(names)}]}}
    return ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "on", "inputs": inner}]}]


@pytest.mark.parametrize("form", ["older", "newer", "dynamic"])
@pytest.mark.parametrize(
    ("listed", "asked", "sent"),
    [
        ("sub\\a.safetensors", "sub/a.safetensors", "sub\\a.safetensors"),
        ("sub\\deep\\a.gguf", "sub/deep/a.gguf", "sub\\deep\\a.gguf"),
        ("sub\\a.safetensors", "sub\\a.safetensors", "sub\\a.safetensors"),
        ("sub/a.safetensors", "sub\\a.safetensors", "sub/a.safetensors"),  # a graph saved on Windows
        ("sub/a.safetensors", "sub/a.safetensors", "sub/a.safetensors"),
        ("a.safetensors", "a.safetensors", "a.safetensors"),
        ("\\n", "\\n", "\\n"),  # a choice that is no file
        ("a\\b", "a\\b", "a\\b"),
    ],
)
def test_a_graph_is_sent_the_name_that_comfyui_lists(form: str, listed: str, asked: str, sent: str) -> None:
    info = {"Loader": {"input": {"required": {"name": specified(listed, form=form)}}}}
    nodes, names = with_one_slash(info)
    loads = {"class_type": "Loader", "inputs": {"name": asked, "steps": 3, "model": ["2", 0]}}
    says = {"class_type": "Text", "inputs": {"text": asked}}
    bare = {"class_type": "Loader"}
    sent_graph = in_its_words({"1": loads, "2": says, "3": bare}, names)
    assert sent_graph["1"]["inputs"] == {"name": sent, "steps": 3, "model": ["2", 0]}
    assert sent_graph["2"] == says
    assert sent_graph["3"] == bare
    assert ("\\" in str(nodes)) == (listed in ("\\n", "a\\b"))


def test_a_name_with_a_backslash_of_its_own_does_not_hide_the_one_in_a_folder() -> None:
    _, names = with_one_slash({"L": {"input": {"required": {"n": [["sub/a.pt", "sub\\a.pt"], {}]}}}})
    assert names == {"L": {"sub/a.pt": "sub/a.pt"}}


@pytest.mark.parametrize("nodes", [{"L": None}, {"L": {"input": 3}}, {"L": {"input": {"required": [[None, {}]]}}}])
def test_a_malformed_list_of_nodes_is_for_the_preflight_to_refuse(nodes: Any) -> None:
    assert with_one_slash(nodes)[1] == {}


def test_one_slash_leaves_a_plain_name_alone() -> None:
    assert [one_slash(path) for path in ("a.png", "a b/c.png", "", "/")] == ["a.png", "a b/c.png", "", ""]
