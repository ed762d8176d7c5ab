"""PNG (third edition): IHDR, PLTE, tRNS and IDAT, with right checksums. No other chunk is parsed by Pillow.

A wrong checksum of a chunk that says how to read the pixels is a fault; IDAT's are not looked at, since its stream has
one of its own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from miner.media.containers.exif import orientation
from miner.media.containers.pixels import MAX_PROFILE, Pixels, broken, too_many_parts

_MOST_CHUNKS = 65_536  # 50 MB in the 8 KB chunks of libpng are 6,400
_LONGEST = {b"IHDR": 13, b"PLTE": 768, b"tRNS": 256, b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}  # bytes
_PALETTE = 3  # a color type
_HOW_TO_READ = (b"IHDR", b"PLTE", b"tRNS")


def rebuild(data: bytes) -> Pixels:
    first: dict[bytes, bytes] = {}  # the first chunk of each kind
    pixels: list[memoryview] = []
    ended = False
    for kind, body, whole in _chunks(data):
        if kind == b"IDAT":
            pixels.append(body)
        elif kind == b"IEND":
            ended = True
        elif kind in _LONGEST and kind not in first and whole:
            if len(body) > _LONGEST[kind]:
                if kind in _HOW_TO_READ:
                    raise broken("PNG")
                continue
            first[kind] = bytes(body)
        elif kind in (b"iCCP", b"eXIf") and kind not in first and whole:
            first[kind] = bytes(body[: 2 * MAX_PROFILE])
        if not pixels and kind != b"IHDR" and b"IHDR" not in first:
            raise broken("PNG")
    header = first.get(b"IHDR", b"")
    if len(header) != 13 or not pixels or (header[9] == _PALETTE and b"PLTE" not in first):
        raise broken("PNG")
    parts = [_chunk(kind, first[kind]) for kind in _HOW_TO_READ if kind in first]
    return Pixels(
        kind="PNG",
        data=b"".join((data[:8], *parts, _chunk(b"IDAT", b"".join(pixels)), _chunk(b"IEND", b""))),
        orientation=orientation(first.get(b"eXIf", b"")),
        icc=_profile(first.get(b"iCCP", b"")),
        cicp=_of_length(first, b"cICP", 4),
        srgb=b"sRGB" in first,
        gamma=int.from_bytes(_of_length(first, b"gAMA", 4)),
        chrm=_of_length(first, b"cHRM", 32),
        cut=not ended,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Kind and body up to IEND; whether the body is whole."""
    view, at = memoryview(data), 8
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        if length >= 1 << 31 or not kind.isalpha():
            raise broken("PNG")
        body = view[at + 8 : at + 8 + length]
        if kind in _HOW_TO_READ and data[at + 8 + length : at + 12 + length] != _checksum(kind, body):
            raise broken("PNG")
        yield kind, body, len(body) == length
        if kind == b"IEND":
            return
        at += 12 + length
    raise too_many_parts("PNG")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join((struct.pack(">I4s", len(body), kind), body, _checksum(kind, body)))


def _checksum(kind: bytes, body: bytes | memoryview) -> bytes:
    return struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _of_length(chunks: dict[bytes, bytes], kind: bytes, length: int) -> bytes:
    body = chunks.get(kind, b"")
    return body if len(body) == length else b""


def _profile(body: bytes) -> bytes:
    """iCCP: a name, a zero, method 0, a zlib stream. Empty if it is broken or too large."""
    _, _, rest = body[:80].partition(b"\0")
    if not rest or rest[0] != 0:
        return b""
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(body[body.index(b"\0") + 2 :], MAX_PROFILE)
    except zlib.error:
        return b""
    return profile if inflate.eof else b""
