"""BMP: the header and the rows. Run-length encoded ones are refused, since Pillow unpacks those in Python."""

from __future__ import annotations

import struct

from miner.media.containers.pixels import MAX_PROFILE, Pixels, Unfit

_EMBEDDED = b"DEBM"  # bV5CSType: the profile is in the file (LCS 'MBED', little-endian)


def rebuild(data: bytes) -> Pixels:
    start, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, bits = struct.unpack_from("<HHxxH", data, 18)
        compression = 0
    else:
        width, height, bits, compression = struct.unpack_from("<iixxHI", data, 18)
    if compression in (1, 2):
        raise Unfit("it is a run-length encoded BMP")
    end = start + abs(height) * ((abs(width) * bits + 31) // 32 * 4)
    return Pixels(kind="BMP", data=data[:end], icc=_profile(data, header), cut=end > len(data))


def _profile(data: bytes, header: int) -> bytes:
    if header < 124 or data[70:74] != _EMBEDDED:
        return b""
    at, size = struct.unpack_from("<II", data, 126)
    profile = data[14 + at : 14 + at + size] if size <= MAX_PROFILE else b""
    return profile if len(profile) == size else b""
