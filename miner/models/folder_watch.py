"""Notices models that are added, replaced or removed in the models folders, by their names, sizes and times.

ComfyUI lists a changed folder again on the next `/object_info`, so no restart is needed: when `changed` returns True,
ask it again and refresh the capabilities. A file that is being copied counts once it has stopped changing. Never: reads
a file.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from miner.comfy.weights import ON_DEMAND, WEIGHTS

Inode = tuple[int, int]
Stamp = tuple[Inode, int, int]  # bytes, and the time of the last change in ns


class FolderWatch:
    """For one thread. A scan takes about a millisecond for a few hundred models on a local disk."""

    def __init__(self, roots: Collection[Path]) -> None:
        """`roots` are models folders; they need not exist yet."""
        self._roots = tuple(roots)
        self._last = self._settled = self._reported = scan(roots)
        self.writing: frozenset[Inode] = frozenset()  # the files that changed between the last two calls

    def changed(self) -> bool:
        """Whether models were added, replaced, removed or renamed under the roots.

        Each change is reported once, by the second call that sees it, or once a file has stopped changing.
        """
        now, last, before = scan(self._roots), self._last, self._settled
        moving = {path for path in now.keys() | last.keys() if now.get(path) != last.get(path)}
        self._last = now
        self._settled = {path: stamp for path, stamp in now.items() if path not in moving}
        self.writing = frozenset(now[path][0] for path in moving & now.keys())
        if self._settled == self._reported or (moving and self._settled != before):
            return False
        self._reported = self._settled
        return True

    @property
    def unsettled(self) -> bool:
        """Whether the last call of `changed` saw a change that may not be over, or has not been reported."""
        return bool(self.writing) or self._settled != self._reported


def scan(roots: Collection[Path]) -> dict[str, Stamp]:
    """Every file of weights under `roots`: its path, and what tells that it changed.

    Follows links to folders, as ComfyUI does, but enters each folder once, since a link may lead back.
    """
    found: dict[str, Stamp] = {}
    known: set[Inode] = set()
    for root in roots:
        for folder, inner, names in os.walk(root, followlinks=True):  # skips what is gone or unreadable
            status = _stat(folder)
            if status is None or (status.st_dev, status.st_ino) in known:
                inner.clear()
                continue
            known.add((status.st_dev, status.st_ino))
            inner[:] = [name for name in inner if name != ON_DEMAND]  # what is in there is never listed
            for name in names:
                if name.lower().endswith(WEIGHTS):
                    found[f"{folder}/{name}"] = _stamp(f"{folder}/{name}")
    return found


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  # os.walk has strings
    except OSError:  # deleted meanwhile, or a link to nothing
        return None


def _stamp(path: str) -> Stamp:
    status = _stat(path)
    if status is None:
        return (0, 0), 0, 0
    return (status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns
