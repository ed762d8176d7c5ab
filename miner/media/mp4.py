"""MP4 files (ISO/IEC 14496-12) without metadata, and whose index comes first, so that a browser plays them at once.

Promises: no frame is encoded again or held in memory; every chunk offset points to the bytes that it pointed to.
Never: reorders a fragmented file, or one with offsets that are not in its index's chunk tables.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import IO

Part = bytes | tuple[int, int]
"""Bytes, or offset and length of a piece of the file."""

_MOST_INDEX = 64 << 20  # bytes; that of an hour has about two million
_METADATA = (b"udta", b"meta", b"uuid")
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_OTHER_OFFSETS = (b"mvex", b"saio")  # of fragments, of encryption


class Inconsistent(Exception):
    """The boxes are not what the file's first bytes announce."""


def boxes(file: IO[bytes], at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Kind, offset, offset of the body, and whole length of each box from `at` to `end`. Raises Inconsistent."""
    while at < end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        body = at + 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            body += 8
        elif length == 0:  # to the end
            length = end - at
        if at + length < body or at + length > end:
            raise Inconsistent("its boxes are inconsistent")
        yield kind, at, body, length
        at += length


def metadata(file: IO[bytes], size: int, *, mark: bytes = b"") -> Iterator[tuple[int, int, bytes]]:
    """Offset and length of each metadata box, and the header of a `free` one in its place; all but `mark`, a box.

    PyAV writes moov/udta/meta. Raises Inconsistent.
    """
    kinds = {kind for kind, *_ in boxes(file, 0, size)}
    if not kinds >= {b"moov", b"mdat"}:
        raise Inconsistent("it has no frames or no index")
    for start, length, header in _metadata_in(file, 0, size):
        file.seek(start)
        if not mark or length != len(mark) or file.read(length) != mark:
            yield start, length, header


def _metadata_in(file: IO[bytes], at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    for kind, start, body, length in boxes(file, at, end):
        if kind in _METADATA:
            yield start, length, struct.pack(">I4s", length, b"free")
        elif kind in (b"moov", b"trak", b"moof", b"traf"):
            yield from _metadata_in(file, body, start + length)


def arranged(file: IO[bytes], size: int, *, mark: bytes = b"") -> list[Part] | None:
    """The parts of the same video with its index first and `mark`, a box, at its end; None if it is so already.

    Raises Inconsistent.
    """
    top = list(boxes(file, 0, size))
    there = any(kind == b"uuid" and _at(file, start, length) == mark for kind, start, _, length in top)
    end: list[Part] = [mark] if mark and not there else []
    moved = _index_first(file, top)
    if moved is None:
        return [(0, size), *end] if end else None
    return [*moved, *end]


def _index_first(file: IO[bytes], top: list[tuple[bytes, int, int, int]]) -> list[Part] | None:
    """None where the index may stay where it is, or has to."""
    kinds = [kind for kind, *_ in top]
    index = kinds.index(b"moov")
    if index < kinds.index(b"mdat") or kinds.count(b"moov") > 1 or {b"moof", b"sidx", b"mfra"} & set(kinds):
        return None
    _, at, _, length = top[index]
    if length > _MOST_INDEX:
        return None
    moov = _at(file, at, length)
    if any(kind in moov for kind in _OTHER_OFFSETS):
        return None
    kept = [(start, length) for kind, start, _, length in top if kind != b"moov"]
    before = sum(kind == b"ftyp" for kind in kinds[: kinds.index(b"mdat")])  # it stays the first
    for wide in (False, True):
        grown = len(_rebuilt(moov, lambda offset: offset, wide=wide))
        places, to = [], 0
        for number, (start, length) in enumerate(kept):
            to += grown if number == before else 0
            places.append((start, start + length, to - start))
            to += length
        try:
            new = _rebuilt(moov, lambda offset: _shifted(offset, places), wide=wide)  # noqa: B023  # called at once
        except OverflowError:
            continue  # with offsets of 64 bits
        except LookupError:
            return None
        return [*kept[:before], new, *kept[before:]]
    return None


def _at(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _shifted(offset: int, places: list[tuple[int, int, int]]) -> int:
    """Raises LookupError for an offset that is in no box of the file."""
    for start, end, by in places:
        if start <= offset < end:
            return offset + by
    raise LookupError(offset)


def _rebuilt(box: bytes, move: Callable[[int], int], *, wide: bool) -> bytes:
    """The box with moved chunk offsets. `wide`: all of them in 64 bits.

    Raises OverflowError if one does not fit into its bits.
    """
    ((kind, _, body, length),) = boxes(io.BytesIO(box), 0, len(box))
    content = box[body:length]
    if kind in _CONTAINERS:
        inner = list(boxes(io.BytesIO(content), 0, len(content)))
        content = b"".join(_rebuilt(content[start : start + size], move, wide=wide) for _, start, _, size in inner)
    elif kind in (b"stco", b"co64"):
        (count,) = struct.unpack_from(">4xI", content)
        offsets = [
            move(offset) for offset in struct.unpack_from(f">{count}{'I' if kind == b'stco' else 'Q'}", content, 8)
        ]
        if kind == b"stco" and not wide and max(offsets, default=0) >= 1 << 32:
            raise OverflowError
        kind = b"co64" if wide else kind
        content = content[:8] + struct.pack(f">{count}{'I' if kind == b'stco' else 'Q'}", *offsets)
    return struct.pack(">I4s", 8 + len(content), kind) + content
