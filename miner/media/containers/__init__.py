"""What of a picture file reaches Pillow: a new file that holds its pixels, and a few facts about them.

Promises: each walk takes time in proportion to the file, follows no offset twice, and copies nothing but what is
needed to draw the first frame. Text, EXIF, XMP, thumbnails, further frames and sub-IFDs never get through.

Never: decodes a pixel. Runs in the decoder's process (`miner.media.decoder`), on bytes that a stranger chose.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from miner.media.containers import avif, bmp, gif, jpeg, png, tiff, webp
from miner.media.containers.pixels import Pixels, Unfit
from miner.media.kinds import picture_kind, unsupported

_REBUILD: dict[str, Callable[[bytes], Pixels]] = {
    "PNG": png.rebuild,
    "JPEG": jpeg.rebuild,
    "WEBP": webp.rebuild,
    "GIF": gif.rebuild,
    "BMP": bmp.rebuild,
    "TIFF": tiff.rebuild,
    "AVIF": avif.rebuild,
}


def rebuild(data: bytes) -> Pixels:
    """The picture's pixels in a file of the same format. Raises Unfit, with a clause for the consumer."""
    kind = picture_kind(data)
    if kind is None:
        raise Unfit(unsupported(data))
    try:
        return _REBUILD[kind](data)
    except (struct.error, IndexError):  # a header that ends too early
        raise Unfit(f"the {kind} file is broken") from None
