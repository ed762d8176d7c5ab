"""Whether a model came or went, seen by the names in the models folders.

ComfyUI lists a folder that has changed anew on the next `/object_info`, so no restart is needed: ask it again, and
judge again (`Offer.refresh`), when `changed` says so. What is being copied counts once it has stopped growing, since
half a model cannot be told from a whole one by its name. Never: reads a file.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from miner.comfy.preflight import WEIGHTS

Size = tuple[int, int]  # bytes, and the time of the last change in ns


class FolderWatch:
    """For one thread. A look takes well under a millisecond a folder."""

    def __init__(self, roots: Collection[Path]) -> None:
        """`roots` are models folders; they need not be there yet."""
        self._roots = tuple(roots)
        self._told = self._scan()
        self._last: tuple[frozenset[str], dict[str, Size]] | None = None

    def changed(self) -> bool:
        """Whether models came, went or were renamed anywhere under the roots, and all was quiet since the last call.

        So each change is told once: by the second call that sees it, or a later one while something still grows.
        """
        names = self._scan()
        if names == self._told:
            self._last = None
            return False
        now = names, {name: _size_of(name) for name in names - self._told}
        if now != self._last:
            self._last = now
            return False
        self._told, self._last = names, None
        return True

    @property
    def unsettled(self) -> bool:
        """Whether the last call of `changed` saw a change that may not be over."""
        return self._last is not None

    def _scan(self) -> frozenset[str]:
        """As ComfyUI looks, through links to folders, but into each folder once, as a link may lead back."""
        found: set[str] = set()
        known: set[tuple[int, int]] = set()
        for root in self._roots:
            for folder, inner, names in os.walk(root, followlinks=True):  # what is gone or closed to us is left out
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
    except OSError:  # it went meanwhile, as the next look will show
        return 0, 0
    return status.st_size, status.st_mtime_ns
