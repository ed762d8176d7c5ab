"""What a stored file is, by its first bytes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = 16
"""Bytes that tell."""

UNTOLD = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded", "binary/octet-stream"})
"""Media types that say nothing of a file: what clients and stores put where they know none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format: the suffix of its names, and its media type."""

    suffix: str
    media_type: str


UNKNOWN = Format(suffix="bin", media_type="application/octet-stream")
PNG = Format(suffix="png", media_type="image/png")
JPG = Format(suffix="jpg", media_type="image/jpeg")
WEBP = Format(suffix="webp", media_type="image/webp")
MP4 = Format(suffix="mp4", media_type="video/mp4")

_ALL = (
    PNG,
    JPG,
    WEBP,
    MP4,
    Format(suffix="gif", media_type="image/gif"),
    Format(suffix="avif", media_type="image/avif"),
    Format(suffix="webm", media_type="video/webm"),
)
_BY_TYPE = {one.media_type: one for one in _ALL}


def format_of(head: bytes, media_type: str) -> Format:
    """The format of a file that begins with `head`; without a known one there, by its media type."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _BY_TYPE["image/gif"]
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _BY_TYPE["video/webm"]
    if head[4:8] == b"ftyp":
        return _BY_TYPE["image/avif"] if head[8:12] == b"avif" else MP4
    return _BY_TYPE.get(media_type.partition(";")[0].strip().lower(), UNKNOWN)
