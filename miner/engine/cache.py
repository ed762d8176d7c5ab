"""Results of the last prompt, by what they depend on: ComfyUI forgets what the next prompt does not use.

Used by the executor's thread alone.
"""

from __future__ import annotations

from collections.abc import Collection

from miner.engine.nodes.base import Result


class Cache:
    """Keeps results, unless `keeps` is false."""

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._kept: dict[str, Result] = {}

    def get(self, signature: str | None) -> Result | None:
        return self._kept.get(signature) if signature else None

    def put(self, signature: str | None, result: Result) -> None:
        """A result without a signature is not kept."""
        if signature and self._keeps:
            self._kept[signature] = result

    def keep_only(self, signatures: Collection[str]) -> None:
        self._kept = {signature: self._kept[signature] for signature in signatures if signature in self._kept}

    def clear(self) -> None:
        self._kept = {}
