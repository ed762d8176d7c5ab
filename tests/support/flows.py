"""Graphs for `Testbed.add_workflow`: a picture, through one of the engine's trial nodes or none, is saved.

The nodes are "empty" or "load", "middle" and "save". They need an engine with the trial nodes, as the test bed's has.
"""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]

IMAGE = '[parameters.image]\ntype = "image"\nrequired = true\nbind = ["load.image"]\n'
"""The parameter of a graph that loads its picture."""


def plain(*, loads: bool = False) -> Graph:
    return _saved(_source(loads=loads))


def wait(seconds: float, *, loads: bool = False, **inputs: Any) -> Graph:
    """`inputs` are DevnetWait's: `until` (a file among the inputs ends it), `interruptible`, `steps`, previews."""
    return _through(_source(loads=loads), "DevnetWait", seconds=seconds, **inputs)


def fail(kind: str, *, times: int = 0, loads: bool = False, says: str = "") -> Graph:
    """`error`, `out-of-memory`, `cuda` or `exit`; the first `times` times, or always. `says`: an error's text."""
    return _through(_source(loads=loads), "DevnetFail", kind=kind, times=times, label=kind, says=says)


def _source(*, loads: bool) -> Graph:
    if loads:
        return {"load": {"class_type": "LoadImage", "inputs": {"image": ""}}}
    return {"empty": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}}


def _through(graph: Graph, class_type: str, **inputs: Any) -> Graph:
    middle = {"class_type": class_type, "inputs": {"image": [next(iter(graph)), 0], **inputs}}
    return _saved({**graph, "middle": middle})


def _saved(graph: Graph) -> Graph:
    images = [list(graph)[-1], 0]
    return {**graph, "save": {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "out"}}}
