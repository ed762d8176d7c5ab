"""What counts of the event stream's words about a prompt's end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import websocket

from miner.comfy.events import parse
from miner.comfy.replies import History
from miner.comfy.told import MOST, Told
from miner.task.stages import OutputFile

FILE = OutputFile(filename="a.png", subfolder="xalora/p", kind="output")
START: tuple[str, dict[str, Any]] = ("execution_start", {"timestamp": 1_000})
CACHED: tuple[str, dict[str, Any]] = ("execution_cached", {"nodes": ["save"], "timestamp": 1_001})
WROTE: tuple[str, dict[str, Any]] = (
    "executed",
    {"node": "save", "output": {"images": [{"filename": "a.png", "subfolder": "xalora/p", "type": "output"}]}},
)
SUCCESS: tuple[str, dict[str, Any]] = ("execution_success", {"timestamp": 3_500})
ERROR: tuple[str, dict[str, Any]] = ("execution_error", {"timestamp": 3_500, "exception_type": "ValueError"})
END: tuple[str, dict[str, Any]] = ("executing", {"node": None})


def told(*messages: tuple[str, dict[str, Any]], prompt: str = "p") -> Told:
    seen = Told()
    for kind, data in messages:
        frame = json.dumps({"type": kind, "data": {"prompt_id": prompt, **data}}).encode()
        parse(websocket.ABNF.OPCODE_TEXT, frame, seen)
    return seen


def test_a_success_that_was_heard_from_start_to_end_is_its_history_and_once() -> None:
    seen = told(START, ("executing", {"node": "save"}), WROTE, SUCCESS, END)
    assert seen.history("other") is None
    assert seen.history("p") == History(status="success", outputs={"save": (FILE,)}, seconds=2.5)
    assert seen.history("p") is None


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((WROTE, SUCCESS, END), id="its start was missed"),
        pytest.param((START, WROTE, SUCCESS), id="its history is not written yet"),
        pytest.param((START, WROTE, ERROR, END), id="it failed"),
        pytest.param((START, WROTE, END), id="how it ended was not said"),
        pytest.param((START, SUCCESS, END), id="it wrote nothing"),
        pytest.param((START, CACHED, WROTE, SUCCESS, END), id="an earlier prompt wrote it"),
        pytest.param((START, ("executed", {"node": "save", "output": 7}), SUCCESS, END), id="it is malformed"),
    ],
)
def test_of_anything_else_the_history_is_asked(messages: tuple[tuple[str, dict[str, Any]], ...]) -> None:
    assert told(*messages).history("p") is None


def test_a_look_in_the_midst_of_a_run_loses_nothing() -> None:
    seen = told(START, WROTE)
    assert seen.history("p") is None
    for kind, data in (SUCCESS, END):
        seen.note(kind, "p", data)
    assert seen.history("p") is not None


def test_prompts_that_nobody_asks_for_are_forgotten() -> None:
    seen = told(START)
    for number in range(MOST):
        seen.note("execution_start", str(number), {})
    for kind, data in (WROTE, SUCCESS, END):
        seen.note(kind, "p", data)
    assert seen.history("p") is None
