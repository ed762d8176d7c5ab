"""GIF (89a): screen, palette and the first image, with its transparent color. Comments and frames are dropped."""

from __future__ import annotations

from miner.media.containers.pixels import Pixels, broken, too_many_parts

_MOST_EXTENSIONS = 4096  # blocks before the first image
_MOST_BLOCKS = 1 << 20  # of the image, of 255 bytes each but for the last
_IMAGE, _EXTENSION, _CONTROL = 0x2C, 0x21, 0xF9


def rebuild(data: bytes) -> Pixels:
    at = 13 + _palette(data[10])
    kept = [data[:at]]
    control, at = _to_image(data, at)
    start = at
    at += 10 + _palette(data[at + 9]) + 1  # and the size of a code
    cut = False
    for _ in range(_MOST_BLOCKS):
        if at >= len(data) or at + data[at] >= len(data):
            cut = True
            break
        if not data[at]:
            break
        at += 1 + data[at]
    else:
        raise too_many_parts("GIF")
    end = len(data) if cut else at + 1
    return Pixels(kind="GIF", data=b"".join((*kept, control, data[start:end], b";")), cut=cut)


def _to_image(data: bytes, at: int) -> tuple[bytes, int]:
    """The graphic control of the first image, and where that begins."""
    control = b""
    for _ in range(_MOST_EXTENSIONS):
        if data[at] == _IMAGE:
            return control, at
        if data[at] == _EXTENSION:
            start, at = at, at + 2
            for _ in range(_MOST_EXTENSIONS):
                if not data[at]:
                    break
                at += 1 + data[at]
            else:
                raise too_many_parts("GIF")
            if data[start + 1] == _CONTROL and at - start == 7:
                control = data[start : at + 1]
        elif data[at]:  # zeros are padding
            raise broken("GIF")
        at += 1
    raise too_many_parts("GIF")


def _palette(flags: int) -> int:
    """Bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
