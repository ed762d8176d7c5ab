"""ICC profiles, built from numbers that are published: versions 2 and 4, RGB, gray and CMYK."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import product

D50 = (0.9642, 1.0, 0.8249)
# Columns of the matrices under D50 (Bradford), from the specifications of the spaces.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def curve(gamma: float) -> bytes:
    return struct.pack(">4s4xIH2x", b"curv", 1, round(gamma * 256))


def parametric(parameters: Sequence[float]) -> bytes:
    return struct.pack(">4s4xH2x", b"para", 3) + fixed(*parameters)


def xyz(numbers: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*numbers)


def profile(*, space: bytes, pcs: bytes, kind: bytes = b"mntr", version: int, **tags: bytes) -> bytes:
    named = {"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), "wtpt": xyz(D50), **tags}
    table, data, start = b"", b"", 132 + 12 * len(named)
    for name, body in named.items():
        table += struct.pack(">4sII", name.encode(), start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s28x", start + len(data), version << 24, kind, space, pcs, b"acsp")
    return head + fixed(*D50) + bytes(48) + struct.pack(">I", len(named)) + table + data


def rgb(matrix: Sequence[Sequence[float]], trc: bytes, *, version: int) -> bytes:
    columns = dict(zip(("rXYZ", "gXYZ", "bXYZ"), map(xyz, matrix), strict=True))
    return profile(space=b"RGB ", pcs=b"XYZ ", version=version, **columns, rTRC=trc, gTRC=trc, bTRC=trc)


def gray(gamma: float) -> bytes:
    return profile(space=b"GRAY", pcs=b"XYZ ", version=2, kTRC=curve(gamma))


def cmyk() -> bytes:
    """Inks on paper, roughly: a table of 5 x 5 x 5 x 5 colors in Lab."""
    steps = [number / 4 for number in range(5)]
    table = b"".join(_lab16(c, m, y, k) for c, m, y, k in product(steps, repeat=4))
    ramp = struct.pack(">2H", 0, 65535)
    head = struct.pack(">4s4x4B", b"mft2", 4, 3, 5, 0) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">2H", 2, 2)
    lut = head + ramp * 4 + table + ramp * 3
    return profile(space=b"CMYK", pcs=b"Lab ", kind=b"prtr", version=2, A2B0=lut)


def _lab16(c: float, m: float, y: float, k: float) -> bytes:
    """In the encoding of version 2."""
    light = 100 * (1 - 0.45 * c) * (1 - 0.5 * m) * (1 - 0.1 * y) * (1 - k)
    a, b = (70 * m - 35 * c) * (1 - k), (85 * y - 45 * c) * (1 - k)
    return struct.pack(">3H", round(light * 652.8), round((a + 128) * 256), round((b + 128) * 256))


PROFILES = {
    "Display P3, version 4": rgb(DISPLAY_P3, parametric(SRGB_CURVE), version=4),
    "Display P3, version 2": rgb(DISPLAY_P3, curve(2.2), version=2),
    "Adobe RGB, version 2": rgb(ADOBE_RGB, curve(2.19921875), version=2),
    "Adobe RGB, version 4": rgb(ADOBE_RGB, curve(2.19921875), version=4),
    "gray 1.8": gray(1.8),
    "CMYK": cmyk(),
}
