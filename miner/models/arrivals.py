"""Whether a model came or went, seen by the times of change of the models folders.

ComfyUI lists its folders anew on each `/object_info`, so no restart is needed: ask it again, and judge again
(`Offer.refresh`), when `changed` says so. Never: reads a file, or looks at one.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


class Arrivals:
    """For one thread. A look takes well under a millisecond a folder."""

    def __init__(self, roots: Collection[Path]) -> None:
        """`roots` are models folders; they need not be there yet."""
        self._roots = tuple(roots)
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether a file came, went or was renamed anywhere under the roots since the last time."""
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> dict[str, int]:
        seen: dict[str, int] = {}
        for root in self._roots:
            for folder, _, _ in os.walk(root):  # a folder that is gone or closed to us is left out
                try:
                    seen[folder] = os.stat(folder).st_mtime_ns  # noqa: PTH116  # os.walk gives strings
                except OSError:
                    continue
        return seen
