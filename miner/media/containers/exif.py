"""EXIF's orientation (TIFF 6.0, tag 274), and nothing else of it."""

from __future__ import annotations

import struct

MAX_EXIF = 1 << 16  # bytes; a JPEG's has no more
_ORIENTATION, _SHORT = 274, 3
_MOST_TAGS = 1000


def orientation(exif: bytes) -> int:
    """1 to 8; 1 (upright) if it is missing or broken, since the pixels are usable anyway."""
    exif = exif[:MAX_EXIF].removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (tags,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * min(tags, _MOST_TAGS), 12):
            tag, form, count, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION:
                return value if (form, count) == (_SHORT, 1) and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
