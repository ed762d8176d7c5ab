"""Untrusted pictures, decoded and encoded anew, in a process of its own (`decoders`).

Promises: the formats of `kinds` are accepted, judged by the first bytes; the size in pixels is judged from the header
before anything is decoded; the result holds the upright pixels of the first frame and nothing else.

Never: opens a picture in the worker.
"""

from __future__ import annotations

from miner.media.alpha import Alpha
from miner.media.decoders import shared
from miner.media.decoding import Refused, Request, Watch
from miner.media.kinds import picture_kind, unsupported
from miner.task.errors import JobFault, MachineFault

_MOST_PER_PIXEL = 5  # bytes of a PNG's, with room for what surrounds them
_OVERHEAD = 1 << 20


def clean_image(
    data: bytes, *, max_pixels: int, alpha: Alpha = "flat", name: str = "image", watch: Watch = lambda: None
) -> tuple[bytes, tuple[int, int]]:
    """A PNG (sRGB, 8 bits) of the picture's first frame, and its width and height in pixels. Blocks while decoding.

    Transparent parts become white, as in a viewer, unless `alpha` keeps them; ComfyUI would show the hidden color.
    Raises JobFault, with `name` (the parameter) before the reason, MachineFault if no decoder works, and what `watch`
    raises.
    """
    if picture_kind(data) is None:
        raise JobFault(f"{name}: {unsupported(data)}")
    most = _MOST_PER_PIXEL * max_pixels + _OVERHEAD
    request = Request(
        do="clean",
        options={"max_pixels": max_pixels, "alpha": alpha},
        body=(data,),
        size=len(data),
        most=most,
        pixels=max_pixels,
    )
    try:
        facts, png = shared.decode(request, watch=watch)
    except Refused as refused:
        raise JobFault(f"{name}: {refused}") from None
    return png, size_of(facts.get("size"))


def size_of(told: object) -> tuple[int, int]:
    """Width and height in pixels, as a decoder told them. Raises MachineFault."""
    match told:
        case [int(width), int(height)]:
            return width, height
    raise MachineFault("the picture decoder's answer has no size")
