"""Thumbnails of finished pictures, for the history.

Promises: at most MAX_BYTES of WebP with the pixels of the first frame and nothing else; None for a file that is not a
picture or needs too much memory. Never: raises for the file's content, since a missing thumbnail fails no task.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from miner.media.pictures import BROKEN, alone, in_rgb

SIDE = 192  # pixels
MAX_BYTES = 8192
MAX_PIXELS = 4096 * 4096  # 50 MB while it is decoded
_QUALITIES = (72, 50, 30, 10)
_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small WebP, and the size in pixels of the original."""

    width: int
    height: int
    webp: bytes = field(repr=False)


def thumbnail(path: Path) -> Thumbnail | None:
    """The file's thumbnail, or None. Blocks while decoding; a JPEG is decoded at an eighth of its size."""
    try:
        with alone(), Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                return None
            picture.thumbnail((SIDE, SIDE))
            return Thumbnail(width=width, height=height, webp=_webp(in_rgb(picture)))
    except BROKEN:
        return None


def _webp(picture: Image.Image) -> bytes:
    """In the best of a few qualities that fits."""
    for quality in _QUALITIES:
        out = io.BytesIO()
        picture.save(out, "WEBP", quality=quality)
        if out.tell() <= MAX_BYTES:
            break
    return out.getvalue()
