"""What becomes of a picture's transparent parts. Imports next to nothing, unlike `colour`, which does it."""

from __future__ import annotations

from typing import Literal

Alpha = Literal["flat", "kept", "bled"]
"""Shown on white; kept, with the colors under them; kept, with the colors of what is visible around them."""


def has_alpha(png: bytes) -> bool:
    """Whether a PNG of ours has an alpha channel: bit 2 of IHDR's color type."""
    return bool(png[25] & 4)
