"""What a node is: its schema, as /object_info tells it, and the function that runs it.

An IMAGE is a tuple of Pillow images of one size, a frame each: RGB or, where alpha was joined, RGBA. They are never
changed in place: frames may be one and the same object, and a cached result may be handed out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from miner.engine.dialect import Dialect
from miner.engine.folders import Folders

Frames = tuple[Image.Image, ...]
Spec = list[Any]
"""`["INT", {"default": 1, "min": 1}]`, or a combo in its first form: `[["a", "b"], {…}]`."""
Schema = Mapping[str, Mapping[str, Spec]]
"""`{"required": {name: spec}, "optional": …, "hidden": …}`, in the order in which a node shows them."""

SAVES: Mapping[str, Any] = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
"""The hidden inputs of nodes that embed the graph."""


class Context(Protocol):
    """What a node may use while it runs."""

    folders: Folders
    dialect: Dialect
    embedded: Mapping[str, Any]  # what to embed in saved files: "prompt" and extra_pnginfo's keys; empty: nothing

    def progress(self, value: float, maximum: float, preview: Image.Image | None = None) -> None:
        """Report `value` of `maximum` steps. Interrupted if the run was asked to end."""

    def wait(self, seconds: float) -> None:
        """Block for `seconds`. Interrupted if the run was asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A node's outputs, in the order of its `returns`, and what it shows (`executed`, history), if anything."""

    outputs: tuple[Any, ...] = ()
    shown: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node class. `run(context, **inputs)` gets the inputs that its schema names and the graph gives."""

    name: str
    title: str
    category: str
    module: str = "nodes"  # the Python module of ComfyUI's own node
    schema: Callable[[Folders, Dialect], Schema]
    returns: tuple[str, ...]
    return_names: tuple[str, ...] = ()  # the types, where empty
    run: Callable[..., Result]
    saves: bool = False  # an output node
    checks: Mapping[str, Callable[[Folders, Any], str]] = field(default_factory=dict)
    # ^ instead of the general checks of an input: why its value is wrong, or ""
    fingerprint: Callable[[Folders, Mapping[str, Any]], str] | None = None  # of what lies outside of the graph
    # ^ OSError: it cannot be told, so the result is not kept


def fixed(required: Mapping[str, Spec], **other: Mapping[str, Any]) -> Callable[[Folders, Dialect], Schema]:
    """A schema that depends on nothing."""
    schema = {"required": required, **other}
    return lambda _folders, _dialect: schema


def describe(node: Node, folders: Folders, dialect: Dialect) -> dict[str, Any]:
    """A node's entry in /object_info."""
    schema = node.schema(folders, dialect)
    entry = {
        "input": schema,
        "input_order": {group: list(specs) for group, specs in schema.items()},
        "output": list(node.returns),
        "output_is_list": [False] * len(node.returns),
        "output_name": list(node.return_names[: len(node.returns)] or node.returns),
        "name": node.name,
        "display_name": node.title,
        "description": "",
        "python_module": node.module,
        "category": node.category,
        "output_node": node.saves,
    }
    if dialect.fuller_object_info:
        entry |= {"is_input_list": False, "has_intermediate_output": False, "search_aliases": []}
    return entry
