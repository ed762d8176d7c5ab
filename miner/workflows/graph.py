"""graph.json: a ComfyUI graph in API format, and how checked values get into it.

Promises: `filled` changes constants at the given places, and nothing else: no node, class or link. A graph that
`read_graph` gives has whole nodes, and links that lead to nodes.
Never: knows a node's class; whether ComfyUI has it, and would take these inputs, is preflight's to say.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from miner.task.errors import ConfigError
from miner.task.stages import Graph, Value

GRAPH = "graph.json"

Place = tuple[str, str]
"""A node's id and the name of one of its inputs."""


def is_link(value: object) -> bool:
    """Whether an input's value is a link, `[node id, slot]`; ComfyUI takes every array for one."""
    return isinstance(value, list)


def links(graph: Graph) -> Iterator[tuple[Place, str, int]]:
    """Every link: the place that it leads to, the node that it comes from, and the slot there."""
    for node, body in graph.items():
        for name, value in body["inputs"].items():
            if is_link(value):
                yield (node, name), value[0], value[1]


def filled(graph: Graph, constants: Mapping[Place, Value]) -> Graph:
    """A copy of `graph` with `constants` in their places. Each place has to hold a constant already."""
    result = copy.deepcopy(graph)
    for (node, name), value in constants.items():
        if is_link(result[node]["inputs"][name]):
            raise ValueError(f"{node}.{name} is a link")
        result[node]["inputs"][name] = value
    return result


def read_graph(path: Path) -> Graph:
    """The graph in the file `path`. Raises ConfigError, naming file, key and reason. Reads the file; else pure."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is no JSON: {error}") from error
    if reason := _flaw(document):
        raise ConfigError(f"{path}: {reason}")
    return document  # type: ignore[no-any-return]  # _flaw has looked at all of it


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _flaw(document: Any) -> str:
    """What is wrong with a graph, as `key: reason`, or nothing."""
    if not isinstance(document, dict) or not document:
        return "is no graph: it must be an object of nodes"
    if isinstance(document.get("nodes"), list):
        return "nodes: this is the editor's format; save the workflow with 'Export (API)' in ComfyUI"
    flaws = (_node_flaw(node, body, document) for node, body in document.items())
    return next(filter(None, flaws), "")


def _node_flaw(node: str, body: Any, document: dict[str, Any]) -> str:
    if not node or "." in node:
        return f"{node}: a node's id must hold something, and no dot"
    if not isinstance(body, dict) or not isinstance(body.get("class_type"), str):
        return f"{node}.class_type: is missing"
    if not isinstance(body.get("inputs"), dict):
        return f"{node}.inputs: is missing"
    for name, value in body["inputs"].items():
        if not is_link(value):
            continue
        if [type(part) for part in value] != [str, int]:
            return f"{node}.inputs.{name}: is no link; it must be [node id, slot]"
        if value[0] not in document:
            return f"{node}.inputs.{name}: leads from node '{value[0]}', which is not there"
    return ""
