"""WebP (RFC 9649): the picture, or an animation's first frame on its canvas."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from miner.media.containers.exif import MAX_EXIF, orientation
from miner.media.containers.pixels import MAX_PROFILE, Pixels, broken, too_many_parts

_MOST_CHUNKS = 65_536
_ALPHA, _ANIMATION = 0x10, 0x02  # in VP8X; the other flags announce what is dropped
_FIRST = frozenset((b"VP8X", b"ICCP", b"EXIF", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"))


def rebuild(data: bytes) -> Pixels:
    first: dict[bytes, memoryview] = {}
    cut = False
    for kind, held, whole in _chunks(data):
        if kind in _FIRST and kind not in first:
            first[kind] = held
            cut = cut or (not whole and kind not in (b"ICCP", b"EXIF"))
    canvas = bytes(first.get(b"VP8X", memoryview(b"")))
    parts: list[bytes] = []
    animated = b"ANMF" in first and bool(canvas) and bool(canvas[0] & _ANIMATION)
    if canvas:
        if len(canvas) != 10:
            raise broken("WEBP")
        flags = canvas[0] & (_ALPHA | _ANIMATION if animated else _ALPHA)
        parts.append(_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + canvas[4:]))
    kinds = (b"ANIM", b"ANMF") if animated else (b"ALPH", b"VP8 ") if b"VP8 " in first else (b"VP8L",)
    if kinds[-1] not in first:
        raise broken("WEBP")
    parts += [_chunk(kind, bytes(first[kind])) for kind in kinds if kind in first and (canvas or kind != b"ALPH")]
    body = b"WEBP" + b"".join(parts)
    profile = bytes(first.get(b"ICCP", memoryview(b""))[: MAX_PROFILE + 1])
    return Pixels(
        kind="WEBP",
        data=b"RIFF" + struct.pack("<I", len(body)) + body,
        orientation=orientation(bytes(first.get(b"EXIF", memoryview(b""))[:MAX_EXIF])),
        icc=profile if len(profile) <= MAX_PROFILE else b"",
        cut=cut,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Kind and body; whether the body is whole."""
    view, at = memoryview(data), 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        body = view[at + 8 : at + 8 + length]
        yield kind, body, len(body) == length
        at += 8 + length + length % 2
    raise too_many_parts("WEBP")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) % 2)
