"""AVIF (ISO/IEC 23008-12), as it is but for EXIF and XMP: their items get a type that no reader looks for."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from miner.media.containers.pixels import Pixels, broken, too_many_parts

_MOST_BOXES = 4096
_CONTAINERS = {b"meta": 4, b"iinf": 0, b"moov": 0, b"trak": 0}  # and bytes before what they contain
_HIDDEN = (b"Exif", b"mime")


def rebuild(data: bytes) -> Pixels:
    new = bytearray(data)
    left = _MOST_BOXES
    ends = 0
    for kind, body, end in _boxes(data, 0, len(data), 0):
        left -= 1
        if not left:
            raise too_many_parts("AVIF")
        if kind == b"infe" and data[body + 8 : body + 12] in _HIDDEN:  # version 2: id and protection have 2 bytes each
            new[body + 8 : body + 12] = b"skip"
        if kind == b"infe" and data[body] >= 3 and data[body + 10 : body + 14] in _HIDDEN:
            new[body + 10 : body + 14] = b"skip"
        ends = max(ends, end)
    return Pixels(kind="AVIF", data=bytes(new), cut=ends > len(data))


def _boxes(data: bytes, at: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset of the body and of the end, of all boxes and those in them."""
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, body)
            body += 8
        elif length == 0:
            length = end - at
        if length < body - at:
            raise broken("AVIF")
        yield kind, body, at + length
        if kind in _CONTAINERS and depth < 4:
            skip = _CONTAINERS[kind] if kind != b"iinf" else 6 if data[body] == 0 else 8
            yield from _boxes(data, body + skip, min(at + length, end), depth + 1)
        at += length
