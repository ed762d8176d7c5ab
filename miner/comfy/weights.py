"""Which files of weights a workflow loads. Pure."""

from __future__ import annotations

from miner.workflows import Workflow
from miner.workflows.graph import Place
from miner.workflows.parameters import EnumParameter, LoraParameter, SeedParameter, place_of

WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl", ".gguf")
"""File name endings that ComfyUI lists as models (`folder_paths.py`), and GGUF's."""

ON_DEMAND = "xalora-on-demand"
"""The folder, inside ComfyUI's `loras`, of those that tasks name by reference. They are for those tasks alone: never
listed, advertised or picked by name."""

Weights = tuple[str, str]
"""A file of weights: its folder under ComfyUI's models ("" if unknown), and its name there."""


def weights_of(workflow: Workflow) -> dict[Weights, int | None]:
    """The files of weights that a workflow loads whatever its task, with their sizes in bytes where known. Pure."""
    sizes: dict[Weights, int | None] = {}
    for model in workflow.manifest.models:
        folder, _, rest = model.folder.partition("/")
        sizes[folder, f"{rest}/{model.name}".lstrip("/")] = model.size
    known, without = {name for _, name in sizes}, replaced(workflow)
    constants = [
        value
        for node, body in workflow.graph.items()
        for name, value in body["inputs"].items()
        if (node, name) not in without
    ]
    for parameter in workflow.manifest.parameters.values():
        constants += parameter.values if isinstance(parameter, EnumParameter) else ()
    for value in constants:
        if isinstance(value, str) and value.lower().endswith(WEIGHTS) and value not in known:
            sizes["", value] = None
    return sizes


def replaced(workflow: Workflow) -> set[Place]:
    """The places whose constants no task uses."""
    return {
        place_of(bind)
        for parameter in workflow.manifest.parameters.values()
        if parameter.required
        or parameter.default is not None
        or isinstance(parameter, SeedParameter)
        or (isinstance(parameter, LoraParameter) and parameter.bypass)
        for bind in parameter.bind  # if a task may leave it out, the graph's own constant is checked too
    }
