"""Notices models that are added to or removed from the models folders, by their names.

ComfyUI lists a changed folder again on the next `/object_info`, so no restart is needed: when `changed` returns True,
ask it again and refresh the capabilities. A file that is being copied counts once it has stopped growing, since half a
model has the same name as a whole one. Never: reads a file.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from miner.comfy.preflight import WEIGHTS

Size = tuple[int, int]  # bytes, and the time of the last change in ns


class FolderWatch:
    """For one thread. A scan takes well under a millisecond a folder."""

    def __init__(self, roots: Collection[Path]) -> None:
        """`roots` are models folders; they need not exist yet."""
        self._roots = tuple(roots)
        self._reported = self._scan()
        self._last: tuple[frozenset[str], dict[str, Size]] | None = None

    def changed(self) -> bool:
        """Whether models were added, removed or renamed under the roots, and nothing changed since the last call.

        Each change is reported once: by the second call that sees it, or later while a file still grows.
        """
        names = self._scan()
        if names == self._reported:
            self._last = None
            return False
        now = names, {name: _size_of(name) for name in names - self._reported}
        if now != self._last:
            self._last = now
            return False
        self._reported, self._last = names, None
        return True

    @property
    def unsettled(self) -> bool:
        """Whether the last call of `changed` saw a change that may not be over."""
        return self._last is not None

    def _scan(self) -> frozenset[str]:
        """Follows links to folders, as ComfyUI does, but enters each folder once, since a link may lead back."""
        found: set[str] = set()
        known: set[tuple[int, int]] = set()
        for root in self._roots:
            for folder, inner, names in os.walk(root, followlinks=True):  # skips what is gone or unreadable
                try:
                    status = os.stat(folder)  # noqa: PTH116  # os.walk gives strings
                except OSError:
                    continue
                if (status.st_dev, status.st_ino) in known:
                    inner.clear()
                    continue
                known.add((status.st_dev, status.st_ino))
                found.update(f"{folder}/{name}" for name in names if name.endswith(WEIGHTS))
        return frozenset(found)


def _size_of(path: str) -> Size:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:  # deleted meanwhile; the next scan shows it
        return 0, 0
    return status.st_size, status.st_mtime_ns
