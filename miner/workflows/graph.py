"""graph.json: a ComfyUI graph in API format, and how to fill in values.

Promises: `filled` only changes constants at the given places, never a node, class or link. `without` leaves out nodes,
and only joins what was linked to them. A graph from `read_graph` has complete nodes and valid links.
Never: checks node classes; preflight compares them with ComfyUI.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from miner.task.errors import ConfigError
from miner.task.stages import Graph, Value

GRAPH = "graph.json"
ALPHA_GRAPH = "graph-alpha.json"  # optional: for pictures with transparent parts

Place = tuple[str, str]
"""Node id and input name."""


def is_link(value: object) -> bool:
    """Whether an input's value is a link, `[node id, slot]`; to ComfyUI, every array is."""
    return isinstance(value, list)


def links(graph: Graph) -> Iterator[tuple[Place, str, int]]:
    """Every link: target place, source node, source slot."""
    for node, body in graph.items():
        for name, value in body["inputs"].items():
            if is_link(value):
                yield (node, name), value[0], value[1]


def constants_of(graph: Graph) -> set[str]:
    """Every text in a graph, with `/` in names of files."""
    values = (value for body in graph.values() for value in body["inputs"].values())
    return {value.replace("\\", "/") for value in values if isinstance(value, str)}


def filled(graph: Graph, constants: Mapping[Place, Value]) -> Graph:
    """A copy of `graph` with `constants` filled in. Raises ValueError if a place is a link."""
    result = copy.deepcopy(graph)
    for (node, name), value in constants.items():
        if is_link(result[node]["inputs"][name]):
            raise ValueError(f"{node}.{name} is a link")
        result[node]["inputs"][name] = value
    return result


def without(graph: Graph, bypassed: Mapping[str, Sequence[str]]) -> Graph:
    """`graph` without the nodes of `bypassed` (node → its inputs, by output): a link to output k of one becomes what is
    linked to its input k, also across several of them. It shares the rest with `graph`. `consistency` checks that all
    of these are links.
    """

    def source(link: list[Any]) -> list[Any]:
        while link[0] in bypassed:
            link = graph[link[0]]["inputs"][bypassed[link[0]][link[1]]]
        return link

    return {
        node: {
            **body,
            "inputs": {name: source(value) if is_link(value) else value for name, value in body["inputs"].items()},
        }
        for node, body in graph.items()
        if node not in bypassed
    }


def varied(graph: Graph, constants: Mapping[Place, Value]) -> Graph:
    """`graph` with a variant's `constants`, whose places are constants, too. It shares the rest with `graph`."""
    result = {node: {**body, "inputs": dict(body["inputs"])} for node, body in graph.items()}
    for (node, name), value in constants.items():
        result[node]["inputs"][name] = value
    return result


def read_graph(path: Path) -> Graph:
    """Read the graph in `path`. Raises ConfigError naming file, key and reason."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: invalid JSON: {error}") from error
    if reason := _flaw(document):
        raise ConfigError(f"{path}: {reason}")
    return document  # type: ignore[no-any-return]  # checked by _flaw


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _flaw(document: Any) -> str:
    """The first flaw of a graph as `key: reason`, or an empty string."""
    if not isinstance(document, dict) or not document:
        return "not a graph: must be an object of nodes"
    if isinstance(document.get("nodes"), list):
        return "nodes: this is the editor's format; save the workflow with 'Export (API)' in ComfyUI"
    flaws = (_node_flaw(node, body, document) for node, body in document.items())
    return next(filter(None, flaws), "")


def _node_flaw(node: str, body: Any, document: dict[str, Any]) -> str:
    if not node or "." in node:
        return f"{node}: node ids must not be empty or contain dots"
    if not isinstance(body, dict) or not isinstance(body.get("class_type"), str):
        return f"{node}.class_type: is missing"
    if not isinstance(body.get("inputs"), dict):
        return f"{node}.inputs: is missing"
    for name, value in body["inputs"].items():
        if not is_link(value):
            continue
        if [type(part) for part in value] != [str, int]:
            return f"{node}.inputs.{name}: not a link: must be [node id, slot]"
        if value[0] not in document:
            return f"{node}.inputs.{name}: links to missing node '{value[0]}'"
    return ""
