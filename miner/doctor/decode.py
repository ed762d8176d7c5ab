"""Decodes rendered files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from miner.media.drawing import BROKEN
from miner.task.errors import MachineFault

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A picture or a video. Without a decoder, sizes are 0 and `decoder` is False."""

    width: int = 0  # pixels
    height: int = 0
    frames: int = 0
    middles: tuple[Color, ...] = ()  # the color in the middle of each frame
    decoder: bool = True


def decode(path: Path) -> Decoded:
    """Decode every frame. Raises MachineFault if one is broken or their sizes differ."""
    try:
        frames = [(image.size, _middle(image)) for image in _frames(path)]
    except ImportError:
        return Decoded(decoder=False)
    except BROKEN as error:
        raise MachineFault(f"the rendered file cannot be decoded: {error}", hint="check ComfyUI's log") from error
    if len({size for size, _ in frames}) != 1:
        raise MachineFault("the frames of the rendered file differ in size", hint="check ComfyUI's log")
    (width, height), _ = frames[0]
    return Decoded(width=width, height=height, frames=len(frames), middles=tuple(middle for _, middle in frames))


def _frames(path: Path) -> Iterator[Image.Image]:
    if path.suffix in (".mp4", ".webm"):
        av: Any = import_module("av")  # in the extra `engine`; its errors are subclasses of OSError and ValueError
        with av.open(str(path)) as video:
            yield from (frame.to_image() for frame in video.decode(video=0))
        return
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            yield image.convert("RGB")


def _middle(image: Image.Image) -> Color:
    red, green, blue = image.convert("RGB").getpixel((image.width // 2, image.height // 2))  # type: ignore[misc]
    return red, green, blue
