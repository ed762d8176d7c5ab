"""Sizes as people read them, in decimal units as on a model's page: 1 GB is 10**9 bytes, in settings, too."""

from __future__ import annotations

GIGABYTE = 10**9  # bytes
MEGABYTE = 10**6


def gb(size: float | None) -> str:
    """Bytes in GB, or in MB or KB below that; "?" for None."""
    if size is None:
        return "?"
    if 0 < size < MEGABYTE:
        return f"{size / 1000:.0f} KB"
    if 0 < size < GIGABYTE:
        return f"{size / MEGABYTE:.1f}".removesuffix(".0") + " MB"
    return f"{size / GIGABYTE:.1f} GB"
