"""The nodes that this engine has, by class name. A node whose library is missing is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec

from miner.engine.dialect import Dialect
from miner.engine.nodes import images, masks, saving, upscale, video
from miner.engine.nodes.base import Node


def nodes_for(dialect: Dialect, more: Iterable[Node] = ()) -> Mapping[str, Node]:
    """Every node that can run here, and `more`. Loads no library."""
    found: list[Node] = [*images.NODES, *masks.NODES, *saving.NODES]
    if _installed("av"):
        found += video.NODES
    if _installed("torch", "spandrel", "numpy"):
        found += upscale.NODES
    found += more
    if not dialect.savers_pass_on:
        found = [replace(node, returns=()) if node.saves else node for node in found]
    return {node.name: node for node in found}


def _installed(*modules: str) -> bool:
    return all(find_spec(module) for module in modules)


__all__ = ["Node", "nodes_for"]
