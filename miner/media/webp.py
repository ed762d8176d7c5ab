"""WebP results (RFC 9649) without EXIF and XMP; with a head that says what is in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

from miner.media.mp4 import Inconsistent, Part

_ALPHA, _EXIF, _XMP = 0x10, 0x08, 0x04  # flags of VP8X


def webp_pieces(file: IO[bytes], size: int) -> Iterator[tuple[int, int, bool]]:
    """Offset and length of each RIFF chunk, and whether to keep it. ComfyUI puts prompt and workflow into EXIF.

    Raises Inconsistent.
    """
    yield 0, 12, True
    at = 12
    while at < size:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        length += 8 + length % 2
        if at + length > size:
            raise Inconsistent("it is truncated")
        yield at, length, kind not in (b"EXIF", b"XMP ")
        at += length


def webp_with_head(file: IO[bytes], parts: list[Part], *, marked: bool) -> list[Part]:
    """The parts of a file with its right size, and VP8X's flags for what is in them.

    Only a file with VP8X can have XMP, so a simple one gets it. Raises Inconsistent.
    """
    file.seek(12)
    first = file.read(8 + 18)
    kind, body = first[:4], first[8:]
    rest = parts[1:]
    if kind == b"VP8X":
        flags = body[0] & ~(_EXIF | _XMP) | (_XMP if marked else 0)
        rest[:1] = [struct.pack("<4sI", b"VP8X", 10) + bytes((flags,)) + body[1:10]]
    elif marked:
        width, height, alpha = _simple(kind, body)
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        rest.insert(0, struct.pack("<4sI", b"VP8X", 10) + bytes((_XMP | alpha, 0, 0, 0)) + sides)
    size = 4 + sum(len(part) if isinstance(part, bytes) else part[1] for part in rest)
    return [struct.pack("<4sI4s", b"RIFF", size, b"WEBP"), *rest]


def _simple(kind: bytes, body: bytes) -> tuple[int, int, int]:
    """Width, height and VP8X's alpha flag of a file of one chunk."""
    if kind == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, _ALPHA if bits >> 28 & 1 else 0
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF, 0
    raise Inconsistent("it has no picture")
