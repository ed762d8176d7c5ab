"""Sizes as people read them."""

from __future__ import annotations

GIGABYTE = 10**9  # bytes
MEGABYTE = 10**6


def gb(size: float | None) -> str:
    """Bytes in GB, or in MB below 50 MB; "?" for None."""
    if size is None:
        return "?"
    return f"{size / GIGABYTE:.1f} GB" if not 0 < size < 50 * MEGABYTE else f"{size / MEGABYTE:.1f} MB"
