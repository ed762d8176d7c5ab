"""Thumbnails of finished pictures, for the history.

Promises: at most MAX_BYTES of WebP with the pixels of the first frame and nothing else; None for a file that is not a
picture or needs too much memory. Never: raises for the file's content, since a missing thumbnail fails no task.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from miner.media.decoders import shared
from miner.media.decoding import Refused, Request
from miner.media.pictures import size_of
from miner.task.errors import MachineFault

SIDE = 192  # pixels
MAX_BYTES = 8192
MAX_PIXELS = 4096 * 4096  # 50 MB while it is decoded
_MAX_FILE = 100_000_000  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small WebP, and the size in pixels of the original."""

    width: int
    height: int
    webp: bytes = field(repr=False)


def thumbnail(path: Path) -> Thumbnail | None:
    """The file's thumbnail, or None. Blocks while it is decoded; a JPEG is decoded at an eighth of its size."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_FILE else b""
        request = Request(
            do="thumbnail",
            options={"max_pixels": MAX_PIXELS, "side": SIDE, "most": MAX_BYTES},
            body=(data,),
            size=len(data),
            most=2 * MAX_BYTES,
            pixels=MAX_PIXELS,
        )
        facts, webp = shared.decode(request)
        width, height = size_of(facts.get("size"))
    except (Refused, MachineFault, OSError):
        return None
    return Thumbnail(width=width, height=height, webp=webp)
