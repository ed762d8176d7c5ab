"""A picture with transparent parts, for tests of whole ways and of the decoder."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageDraw


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def cut_out(size: int = 64) -> Image.Image:
    """A red disc with a soft edge; hidden under what is transparent: green."""
    matte = Image.new("L", (size * 4, size * 4))
    ImageDraw.Draw(matte).ellipse((size, size, size * 3, size * 3), fill=255)
    matte = matte.resize((size, size), Image.Resampling.LANCZOS)
    red = matte.point(lambda alpha: 220 if alpha else 0)
    green = matte.point(lambda alpha: 0 if alpha else 255)
    return Image.merge("RGBA", (red, green, Image.new("L", matte.size), matte))
