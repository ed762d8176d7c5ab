"""The bench's own workflows, and the work that is made of them.

`bench-wait` waits, in the embedded engine's DevnetWait: a GPU's work costs the CPU as little, so that two cores measure
the pipeline and not each other. `bench-gated` saves its picture first, and then waits until a file is there.
`bench-scale` is for a real ComfyUI: core nodes alone, no model, real work on the CPU, and a 512 px PNG. Each task has
its own number, which is the picture's color, so that no node of it is cached.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miner.task.stages import Graph, Value
from miner.workflows import Library, load_library

TASK_TYPE = "upscaler"
WAIT, GATED, SCALE = "bench-wait", "bench-gated", "bench-scale"
COLORS = 1 << 24


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def _picture(side: int) -> dict[str, Any]:
    return _node("EmptyImage", width=side, height=side, batch_size=1, color=0)


def _save(node: str) -> dict[str, Any]:
    return _node("SaveImage", images=[node, 0], filename_prefix="bench")


def _scaled(node: str, method: str, *, side: int) -> dict[str, Any]:
    return _node("ImageScale", image=[node, 0], upscale_method=method, width=side, height=side, crop="disabled")


_GRAPHS: dict[str, Graph] = {
    WAIT: {
        "picture": _picture(64),
        "work": _node("DevnetWait", image=["picture", 0], seconds=0.0, previews_per_second=0.0),
        "save": _save("work"),
    },
    GATED: {
        "picture": _picture(64),
        "save": _save("picture"),
        "work": _node("DevnetWait", image=["save", 0], seconds=600.0, until=""),
        "end": _node("PreviewImage", images=["work", 0]),
    },
    SCALE: {
        "picture": _picture(8),
        "noise": _node("ImageAddNoise", image=["picture", 0], seed=1, strength=1.0),
        "work": _scaled("noise", "bicubic", side=512),
        "result": _scaled("work", "area", side=512),
        "save": _save("result"),
    },
}

_MANIFEST = """
name = "{name}"
task_type = "{task_type}"
description = "measures"
timeout_seconds = 600.0
output = {{ node = "save", format = "png" }}
needs = {{ vram_gb = 0.0, comfyui = "0.3.0" }}
[parameters]
number = {{ type = "int", min = 0, max = 16777215, required = true, bind = ["picture.color"] }}
{parameters}
"""

_PARAMETERS = {
    WAIT: """
seconds = { type = "float", default = 0.0, min = 0.0, max = 3600.0, bind = ["work.seconds"] }
previews = { type = "float", default = 0.0, min = 0.0, max = 100.0, bind = ["work.previews_per_second"] }
""",
    GATED: """
gate = { type = "string", max_length = 100, required = true, bind = ["work.until"] }
""",
    SCALE: """
side = { type = "int", default = 512, min = 64, max = 8192, bind = ["work.width", "work.height"] }
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One graph of a certain length on one ComfyUI."""

    url: str
    workflow: str
    milliseconds: int = 0  # that a run is to take, about
    values: dict[str, Value] = field(default_factory=dict)  # the parameters that make it take so long
    folders: dict[str, str] = field(default_factory=dict)  # the worker's settings about ComfyUI's folders, if shared

    def parameters(self, number: int) -> dict[str, Value]:
        """A task's parameters; those of different numbers share no cached node."""
        return {**self.values, "number": number % COLORS}


def write_workflows(folder: Path) -> Library:
    """Write the two folders, and load them as the worker will."""
    for name, graph in _GRAPHS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "graph.json").write_text(json.dumps(graph))
        (folder / name / "workflow.toml").write_text(
            _MANIFEST.format(name=name, task_type=TASK_TYPE, parameters=_PARAMETERS[name])
        )
    return load_library([folder], ids={})


def fill(library: Library, work: Work, number: int, *, prefix: str) -> Graph:
    """The very graph that the worker makes of a task."""
    workflow = library.get(work.workflow)
    return workflow.fill(workflow.check(work.parameters(number), loras=()).values, images={}, prefix=prefix)
