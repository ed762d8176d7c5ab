"""TIFF (6.0): the first directory's baseline tags, its strips or tiles, and no other byte, in a new file.

Strips and tiles must not have more bytes together than the file, nor more area than the picture.
"""

from __future__ import annotations

import itertools
import struct

from miner.media.containers.pixels import MAX_PROFILE, Pixels, Unfit, broken, too_many_parts

_MOST_TAGS = 4096
_MOST_PIECES = 200_000  # strips or tiles; an upright picture of single rows in three planes has 50,000
_MOST_SAMPLES = 8  # per pixel
_LARGEST_TILE = 1024  # pixels a side that a tile may have although the picture is smaller
_BYTES = {1: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # of one value, by type
_LETTERS = {1: "B", 3: "H", 4: "I"}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _PLANAR = 256, 257, 258, 259, 277, 284
_STRIPS, _ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_ORIENTATION, _TABLES, _ICC = 274, 347, 34675
_PIECES = frozenset((_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES))
_ONE = frozenset((_WIDTH, _HEIGHT, _COMPRESSION, 262, 266, _ORIENTATION, _SAMPLES, _ROWS, _PLANAR, 292, 293, 317))
_ONE |= {_TILE_WIDTH, _TILE_HEIGHT, 332, 531}
_MOST = {_BITS: 8, 320: 3 << 16, 338: 8, 339: 8, 530: 2, 529: 3, 532: 6, _TABLES: 1 << 16}  # values
_OLD_JPEG, _JPEG = 6, 7
_PROGRESSIVE = b"\xff\xc2"


def rebuild(data: bytes) -> Pixels:
    order = "<" if data.startswith(b"II") else ">"
    directory = _Directory(data, order)
    compression = directory.one(_COMPRESSION, 1)
    if compression == _OLD_JPEG:
        raise Unfit("it is a TIFF file with JPEG inside in the old way")
    pieces, missing = _pieces(directory, data)
    if compression == _JPEG and any(_PROGRESSIVE in piece for piece in (*pieces, directory.raw(_TABLES))):
        raise Unfit("it is a TIFF file with progressive JPEG inside")  # its scans cannot be counted
    orientation = directory.one(_ORIENTATION, 1)
    profile = directory.raw(_ICC)
    for tag in (_ICC, _ORIENTATION):
        directory.tags.pop(tag, None)
    return Pixels(
        kind="TIFF",
        data=_written(data[:4], order, directory.tags, pieces),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        icc=profile,
        missing=min(missing, directory.one(_HEIGHT, 0)),
    )


class _Directory:
    """The first one's known tags: type and raw value, by number."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self.tags: dict[int, tuple[int, bytes]] = {}
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        if count > _MOST_TAGS:
            raise too_many_parts("TIFF")
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, form, values = struct.unpack_from(f"{order}HHI", data, entry)
            self._take(tag, form, values, entry + 8)

    def _take(self, tag: int, form: int, count: int, at: int) -> None:
        most = 1 if tag in _ONE else _MOST_PIECES if tag in _PIECES else MAX_PROFILE if tag == _ICC else _MOST.get(tag)
        if most is None or tag in self.tags:
            return
        if count > most:
            if tag == _ICC:
                return
            raise Unfit("the TIFF file has tags that are too large")
        size = count * _BYTES.get(form, 0)
        if not size:
            return
        if size > 4:
            (at,) = struct.unpack_from(f"{self._order}I", self._data, at)
        value = self._data[at : at + size]
        if len(value) == size:
            self.tags[tag] = (form, value)
        elif tag != _ICC:
            raise broken("TIFF")

    def raw(self, tag: int) -> bytes:
        return self.tags.get(tag, (1, b""))[1]

    def values(self, tag: int) -> tuple[int, ...]:
        form, value = self.tags.get(tag, (1, b""))
        if form not in _LETTERS:
            raise broken("TIFF")
        return struct.unpack(f"{self._order}{len(value) // _BYTES[form]}{_LETTERS[form]}", value)

    def one(self, tag: int, usual: int) -> int:
        return next(iter(self.values(tag)), usual)


def _pieces(directory: _Directory, data: bytes) -> tuple[list[bytes], int]:
    """The strips or tiles, and how many rows lie behind the end of the file. Raises Unfit for those that cost more
    than the picture."""
    tiled = _TILES in directory.tags or _TILE_WIDTH in directory.tags
    across, down = _grid(directory, tiled=tiled)
    offsets = directory.values(_TILES if tiled else _STRIPS)
    counts = directory.values(_TILE_BYTES if tiled else _STRIP_BYTES)
    planes = directory.one(_SAMPLES, 1) if directory.one(_PLANAR, 1) == 2 else 1
    if len(offsets) == 1 and not any(counts):
        counts = (max(len(data) - offsets[0], 0),)
    if len(offsets) != across * down * planes or len(counts) != len(offsets):
        raise broken("TIFF")
    pieces = [data[offset : offset + count] for offset, count in zip(offsets, counts, strict=True)]
    whole = [len(piece) == count for piece, count in zip(pieces, counts, strict=True)]
    if all(whole) and sum(counts) > len(data):
        raise Unfit("the TIFF file has pieces that lie upon one another")
    rows = directory.one(_TILE_HEIGHT if tiled else _ROWS, directory.one(_HEIGHT, 0))
    if len(pieces) == 1 and not tiled and directory.one(_COMPRESSION, 1) == 1:
        lost = counts[0] - len(pieces[0])
        return pieces, -(-lost * directory.one(_HEIGHT, 0) // max(counts[0], 1))
    bands = {index % (across * down) // across for index, one in enumerate(whole) if not one}
    return pieces, len(bands) * rows


def _grid(directory: _Directory, *, tiled: bool) -> tuple[int, int]:
    """How many pieces lie side by side, and how many one below the other. Raises Unfit."""
    width, height = directory.one(_WIDTH, 0), directory.one(_HEIGHT, 0)
    if not width or not height or not 1 <= directory.one(_SAMPLES, 1) <= _MOST_SAMPLES:
        raise broken("TIFF")
    if tiled:
        across, down = directory.one(_TILE_WIDTH, 0), directory.one(_TILE_HEIGHT, 0)
        if not 0 < across <= _side(width) or not 0 < down <= _side(height):
            raise Unfit("the TIFF file has tiles that are larger than its picture")
    else:
        across, down = width, min(directory.one(_ROWS, height), height)
    if not down:
        raise broken("TIFF")
    return -(-width // across), -(-height // down)


def _side(pixels: int) -> int:
    return max(_LARGEST_TILE, -(-pixels // 16) * 16)


def _written(start: bytes, order: str, tags: dict[int, tuple[int, bytes]], pieces: list[bytes]) -> bytes:
    """A file of these tags and pieces; `start`: its first four bytes."""
    tiled = _TILES in tags
    for tag in _PIECES:
        tags.pop(tag, None)
    counts = struct.pack(f"{order}{len(pieces)}I", *map(len, pieces))
    tags |= {_TILES if tiled else _STRIPS: (4, counts), _TILE_BYTES if tiled else _STRIP_BYTES: (4, counts)}
    behind = 8 + 2 + 12 * len(tags) + 4
    at = behind + sum(len(value) + len(value) % 2 for _, value in tags.values() if len(value) > 4)
    offsets = itertools.accumulate(map(len, pieces[:-1]), initial=at)
    tags[_TILES if tiled else _STRIPS] = (4, struct.pack(f"{order}{len(pieces)}I", *offsets))
    entries: list[bytes] = []
    values: list[bytes] = []
    for tag, (form, value) in sorted(tags.items()):
        entry = struct.pack(f"{order}HHI", tag, form, len(value) // _BYTES[form])
        if len(value) <= 4:
            entries.append(entry + value.ljust(4, b"\0"))
        else:
            entries.append(entry + struct.pack(f"{order}I", behind))
            values.append(value + bytes(len(value) % 2))
            behind += len(values[-1])
    head = start + struct.pack(f"{order}IH", 8, len(tags))
    return b"".join((head, *entries, bytes(4), *values, *pieces))
