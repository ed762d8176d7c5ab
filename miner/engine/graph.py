"""Pure functions on graphs: links, run order, and what a node's result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

Graph = Mapping[str, Mapping[str, Any]]
"""ComfyUI's API format: node id → {"class_type": …, "inputs": {…}}."""


def is_link(value: Any) -> bool:
    """Whether an input is `[node id, output index]`."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (int, float))
    )


def links(graph: Graph, node: str) -> list[str]:
    """The nodes that `node` depends on, in the order of its inputs; dangling links are skipped."""
    return [value[0] for value in _inputs(graph[node]).values() if is_link(value) and value[0] in graph]


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node's inputs. An unused node is not validated, so they may be missing or not a mapping."""
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def run_order(graph: Graph, outputs: Iterable[str], *, cached: Collection[str], savers: Collection[str]) -> list[str]:
    """The nodes to run for `outputs`, in ComfyUI's order. `outputs` are among them even where they are cached.

    Of the nodes that are ready: first one that saves; then one that only a saving node waits for; then one that such a
    node waits for; else the one found first.
    """
    waiting = _needed(graph, outputs, cached)
    needs = {node: {source for source in links(graph, node) if source in waiting} for node in waiting}
    followers = {node: [other for other in waiting if node in needs[other]] for node in waiting}
    order: list[str] = []
    while waiting:
        ready = [node for node in waiting if not needs[node] & waiting.keys()]
        order.append(_pick(ready, followers, savers))
        del waiting[order[-1]]
    return order


def _needed(graph: Graph, outputs: Iterable[str], cached: Collection[str]) -> dict[str, None]:
    """What has to run, as an ordered set: each output, and behind it what it needs, last input first."""
    found: dict[str, None] = {}
    for output in outputs:
        stack = [output]
        while stack:
            node = stack.pop()
            if node not in found:
                found[node] = None
                stack += [source for source in links(graph, node) if source not in cached]
    return found


def _pick(ready: list[str], followers: Mapping[str, list[str]], savers: Collection[str]) -> str:
    nearest = [(node, {node}) for node in ready]
    for _ in range(3):
        for node, reached in nearest:
            if not reached.isdisjoint(savers):
                return node
        nearest = [(node, {after for one in reached for after in followers[one]}) for node, reached in nearest]
    return ready[0]


def signatures(graph: Graph, fingerprint: Callable[[str], str | None]) -> dict[str, str]:
    """What each node's result depends on, as a digest: its class, its inputs, and the same of all before it.

    `fingerprint(node)` stands for what lies outside of the graph, such as a file's content. None means unknown:
    then neither that node nor any after it has a signature.
    """
    digests: dict[str, str | None] = {}

    def digest(node: str) -> str | None:
        if node not in digests:
            digests[node] = None  # ends a cycle, and a link to nowhere: both can be in a part that is not run
            if node in graph:
                digests[node] = _digest(graph[node], fingerprint(node), digest)
        return digests[node]

    return {node: known for node in graph if (known := digest(node)) is not None}


def _digest(node: Mapping[str, Any], outside: str | None, digest: Callable[[str], str | None]) -> str | None:
    parts: list[Any] = [node["class_type"], outside]
    if outside is None:
        return None
    for name, value in sorted(_inputs(node).items()):
        source = digest(value[0]) if is_link(value) else ""
        if source is None:
            return None
        parts.append([name, "link", source, value[1]] if source else [name, value])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
