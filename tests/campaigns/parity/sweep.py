"""Every parameter that the older miner's endpoint files declare, at its default, least, greatest and one value between.

Each is sent to our miner in a task of its own. It is taken once the real ComfyUI has the prompt, in which the value is
looked for. Then its consumer cancels it, so that nothing of these sizes has to be rendered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from miner.config.bundled import WORKFLOWS
from miner.workflows import Workflow, load_library
from miner.workflows.parameters import EnumParameter, IntParameter, place_of
from tests.support.testbed import Testbed, until

Row = tuple[str, bool, str]
"""What was sent, whether it arrived, and what was seen."""

TEXT = "a lighthouse by the sea"
OURS = {"mochi-fp16": "mochi-fp8"}  # of the same graph; ours under one name


def endpoints(miners: Sequence[Path]) -> list[Path]:
    """The endpoint files of the older miner's branches, each name once."""
    files = {path.name: path for miner in miners for path in (miner / "example" / "endpoints").glob("*.yaml")}
    return sorted(files.values())


def sweep(testbed: Testbed, comfyui: str, endpoint_files: Sequence[Path], *, lora: str) -> Iterator[Row]:
    """Send them all, one after the other. Blocks for seconds a value."""
    library = load_library([WORKFLOWS], ids={})
    files = {path: library.get(OURS.get(path.stem, path.stem)) for path in endpoint_files}
    testbed.start_devnet()
    names = {workflow.manifest.id: [workflow.name] for workflow in files.values()}
    testbed.start_worker(comfyui, workflows=names, sequencer__poll_interval=0.2)
    until(lambda: testbed.devnet.requests("miner_request"), why="our miner", patience=120.0)
    for path, workflow in files.items():
        for declared in yaml.safe_load(path.read_text())["parameters"]:
            for value in _values(declared, lora):
                others = {"lora_name": lora} if workflow.lora_base else {}
                asked = {"prompt": TEXT, **others, declared["name"]: value}
                title = f"{path.stem}: {declared['name']} = {value!r}"
                yield title, *_arrived(testbed, comfyui, workflow, asked, declared["name"])


def _values(declared: dict[str, Any], lora: str) -> Iterator[Any]:
    if declared["name"] == "lora_name":  # its default is a file of the network's
        yield from (lora, f"{lora}.safetensors")
    elif "options" in declared:
        yield from declared["options"]
    elif "minimum" in declared:
        low, high = declared["minimum"], declared["maximum"]
        between = (low + high) // 2 if declared["type"] == "int" else (low + high) / 2
        yield from (declared["default"], low, high, between)
    else:
        yield declared.get("default", TEXT)


def _arrived(testbed: Testbed, comfyui: str, workflow: Workflow, asked: dict[str, Any], name: str) -> tuple[bool, str]:
    task_id = testbed.create(workflow.task_type, workflow.manifest.id, parameters=asked)

    def seen() -> Any:
        task = testbed.task(task_id)
        return task if task["status"] == "failed" else _prompt(testbed, comfyui)

    found = until(seen, why=f"a prompt of {asked}", patience=120.0)
    if "status" in found:
        return False, f"refused: {found.get('msg') or found.get('result')}"
    testbed.cancel(task_id)
    until(lambda: _prompt(testbed, comfyui) is None, why=f"the end of {task_id}", patience=300.0)
    return _holds(workflow, found, name, asked[name])


def _prompt(testbed: Testbed, comfyui: str) -> dict[str, Any] | None:
    """The graph of the task, while ComfyUI has it in its queue."""
    queue = testbed.session.get(f"{comfyui}/queue", timeout=60).json()
    graphs = (item[2] for item in (*queue["queue_running"], *queue["queue_pending"]))
    return next((graph for graph in graphs if TEXT in str(graph)), None)


def _holds(workflow: Workflow, graph: dict[str, Any], name: str, value: Any) -> tuple[bool, str]:
    known = workflow.manifest.parameters
    parameter = known.get(name) or next(one for one in known.values() if name in one.aliases)
    expected: dict[str, Any] = {name: value}
    if isinstance(parameter, EnumParameter):  # it is not in the graph, but what it sets is
        width, height = known["width"].default, known["height"].default  # of custom
        if " " in value:
            width, height = map(int, value.rpartition(" ")[2].split("x"))
        expected = {"width": width, "height": height}
    elif isinstance(parameter, IntParameter) and parameter.round == "down":
        expected = {name: parameter.parse(value)}  # as many frames as the node makes of `value`
    elif name == "lora_name":
        expected = {name: f"{value.removesuffix('.safetensors')}.safetensors"}
    places = {one: (known.get(one) or parameter).bind for one in expected}
    arrived = {one: [graph[node]["inputs"][key] for node, key in map(place_of, places[one])] for one in expected}
    ok = all(set(arrived[one]) == {expected[one]} for one in expected)
    return ok, ", ".join(f"{one} {values[0]}" for one, values in arrived.items())
