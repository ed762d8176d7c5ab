"""What a walk over a file hands on."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_PROFILE = 4 << 20  # bytes; the largest in use, for CMYK, have three


class Unfit(Exception):
    """Why a picture is refused, as a clause for the consumer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """A picture of the first frame alone, in a file for Pillow's plugin `kind`.

    `icc`, `cicp` (four bytes), `srgb`, `gamma` (times 100,000) and `chrm` (PNG's 32 bytes) say what its colors mean;
    empty where the file does not. `orientation` is EXIF's, 1 to 8. `cut` tells that the file ends too early: rows may
    be missing; `missing` is how many are, where the walk can tell.
    """

    kind: str
    data: bytes = field(repr=False)
    orientation: int = 1
    icc: bytes = field(default=b"", repr=False)
    cicp: bytes = b""
    srgb: bool = False
    gamma: int = 0
    chrm: bytes = b""
    cut: bool = False
    missing: int = 0


def too_many_parts(kind: str) -> Unfit:
    return Unfit(f"the {kind} file has too many parts")


def broken(kind: str) -> Unfit:
    return Unfit(f"the {kind} file is broken")
