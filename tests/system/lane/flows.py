"""Graphs that wait, gate and fail, for `Testbed.add_workflow`. They need an engine with the trial nodes."""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]


def wait(seconds: float, **inputs: Any) -> Graph:
    """`inputs` are DevnetWait's: `until` (a file among the inputs ends it), `interruptible`."""
    return _through({"class_type": "DevnetWait", "inputs": {"seconds": seconds, **inputs}})


def fail(kind: str, *, times: int = 0) -> Graph:
    """`error`, `out-of-memory`, `cuda` or `exit`; the first `times` times, or always."""
    return _through({"class_type": "DevnetFail", "inputs": {"kind": kind, "times": times, "label": kind}})


def _through(node: dict[str, Any]) -> Graph:
    node["inputs"]["image"] = ["empty", 0]
    return {
        "empty": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "middle": node,
        "save": {"class_type": "SaveImage", "inputs": {"images": ["middle", 0], "filename_prefix": "out"}},
    }
