"""Nodes that wait, work or fail as a test asks, for `tests.support.engine`. They pass an IMAGE on.

Their names begin with Devnet, so that nobody takes them for ComfyUI's. `DevnetFail` raises what a real ComfyUI raises,
under the same names, and dies as one does.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from miner.engine.nodes.base import Context, Frames, Node, Result, fixed

_MODULE = "tests.support.trial_nodes"
_PREVIEW = (64, 64)  # pixels
_BLOCK = bytes(1 << 20)
_GATE_CHECK = 0.01  # seconds
_CUDA_TEXT = "CUDA error: an illegal memory access was encountered"


def wait(
    context: Context,
    *,
    image: Frames,
    seconds: float,
    steps: int = 0,
    previews_per_second: float = 0.0,
    interruptible: bool = True,
    until: str = "",
) -> Result:
    """Take `seconds`, or less: until an input file of the name `until` is there (an upload ends the wait).

    It reports `steps` of progress, or as many as previews are asked for. Not interruptible, it heeds no interrupt, and
    reports nothing.
    """
    _raise_if_poisoned()
    gate = context.folders.find(until) if until else None
    pause = context.wait if interruptible else _wait_deaf
    told = max(steps, round(seconds * previews_per_second)) if interruptible else 0
    start, parts = time.monotonic(), max(told, 1)
    for step in range(1, parts + 1):
        while (left := start + seconds * step / parts - time.monotonic()) > 0 and not (gate and gate.exists()):
            pause(min(left, _GATE_CHECK) if gate else left)
        if told:
            context.progress(step, told, _grey(step / told) if previews_per_second else None)
    return Result(outputs=(image,))


def _wait_deaf(seconds: float) -> None:
    threading.Event().wait(seconds)


def _grey(share: float) -> Image.Image:
    return Image.new("RGB", _PREVIEW, (round(255 * share),) * 3)


def busy(context: Context, *, image: Frames, milliseconds: float) -> Result:
    """Use that much time of one CPU, outside of the interpreter's lock, as a sampler does."""
    _raise_if_poisoned()
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        hashlib.sha256(_BLOCK)
        context.wait(0)
    return Result(outputs=(image,))


class _Poison:
    """A CUDA fault stays: every node that would touch the GPU fails from then on, until the process is restarted."""

    spread = False


def _raise_if_poisoned() -> None:
    if _Poison.spread:
        raise _CUDA_ERROR(_CUDA_TEXT)


def fail(context: Context, *, image: Frames, kind: str, times: int = 0, label: str = "", says: str = "") -> Result:
    """Fail: always, or the first `times` times that `label` comes by, counted over restarts of the engine.

    `says` is the text of an `error`.
    """
    _raise_if_poisoned()
    if times and _count(context.folders.user / "devnet-fail.json", label) > times:
        return Result(outputs=(image,))
    raise RuntimeError(says) if says else _FAULTS[kind]()


def _count(path: Path, label: str) -> int:
    counts = json.loads(path.read_text()) if path.exists() else {}
    label = hashlib.sha256(label.encode()).hexdigest()  # what a task says is for nobody to find
    counts[label] = counts.get(label, 0) + 1
    path.write_text(json.dumps(counts))
    return int(counts[label])


def _named(module: str, name: str) -> type[RuntimeError]:
    """An error that calls itself `module.name`, as torch's do, without torch."""
    return type(name, (RuntimeError,), {"__module__": module})


_OOM_ERROR = _named("torch", "OutOfMemoryError")
_CUDA_ERROR = _named("torch", "AcceleratorError")


def _out_of_memory() -> BaseException:
    return _OOM_ERROR("Allocation on device 0 would exceed allowed memory. (out of memory)")


def _cuda() -> BaseException:
    _Poison.spread = True
    return _CUDA_ERROR(_CUDA_TEXT)


_FAULTS: dict[str, Callable[[], BaseException]] = {
    "error": lambda: RuntimeError("DevnetFail was asked to fail"),
    "out-of-memory": _out_of_memory,
    "cuda": _cuda,
    "exit": lambda: SystemExit(1),  # ends the executing thread; HTTP goes on answering, and the queue stands for ever
}


def _number(kind: str, default: float, **bounds: float) -> list[Any]:
    return [kind, {"default": default, "min": 0, **bounds}]


NODES = (
    Node(
        name="DevnetWait",
        title="Wait (devnet)",
        category="devnet",
        module=_MODULE,
        schema=fixed(
            {"image": ["IMAGE"], "seconds": _number("FLOAT", 1.0, max=3600.0)},
            optional={
                "steps": _number("INT", 0, max=10000),
                "previews_per_second": _number("FLOAT", 0.0, max=1000.0),
                "interruptible": ["BOOLEAN", {"default": True}],
                "until": ["STRING", {"default": ""}],
            },
        ),
        returns=("IMAGE",),
        run=wait,
    ),
    Node(
        name="DevnetBusy",
        title="Busy (devnet)",
        category="devnet",
        module=_MODULE,
        schema=fixed({"image": ["IMAGE"], "milliseconds": _number("FLOAT", 30.0, max=3_600_000.0)}),
        returns=("IMAGE",),
        run=busy,
    ),
    Node(
        name="DevnetFail",
        title="Fail (devnet)",
        category="devnet",
        module=_MODULE,
        schema=fixed(
            {"image": ["IMAGE"], "kind": [list(_FAULTS)]},
            optional={
                "times": _number("INT", 0, max=10000),
                "label": ["STRING", {"default": ""}],
                "says": ["STRING", {"default": ""}],
            },
        ),
        returns=("IMAGE",),
        run=fail,
    ),
)
