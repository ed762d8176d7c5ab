"""The nodes that make and change images, with Pillow alone.

`lanczos` gives ComfyUI's very pixels, and `nearest-exact` does but where a pixel lies right between two. `bilinear`,
`bicubic` and `area` are Pillow's own, which smooth when they shrink. A level is a whole number here, so that inverting
can differ by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from PIL import Image, ImageChops, ImageFile, ImageOps, ImageSequence, UnidentifiedImageError

from miner.engine.dialect import Dialect
from miner.engine.folders import Folders
from miner.engine.nodes.base import Context, Frames, Node, Result, Schema, fixed

METHODS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_SIDE = 16384  # pixels, ComfyUI's MAX_RESOLUTION
_NO_MASK = (64, 64)  # the size of the mask of an image without alpha

T = TypeVar("T")


def each(change: Callable[[Image.Image], Image.Image], frames: Frames) -> Frames:
    """`change` on every frame; a frame that comes twice is changed once."""
    changed: dict[int, Image.Image] = {}
    for frame in frames:
        if id(frame) not in changed:
            changed[id(frame)] = change(frame)
    return tuple(changed[id(frame)] for frame in frames)


def load_image(context: Context, *, image: str) -> Result:
    path = context.folders.find(image)
    if path is None:
        raise ValueError(f"Invalid file path: {image!r}")
    frames: list[Image.Image] = []
    masks: list[Image.Image] = []
    with lenient(lambda: Image.open(path)) as opened:
        for raw in ImageSequence.Iterator(opened):
            frame = cast("Image.Image", lenient(partial(ImageOps.exif_transpose, raw)))
            if frame.mode.startswith("I"):  # 16 or 32 bits a pixel
                frame = frame.point(lambda value: value * (1 / 255))
            pixels = frame.convert("RGB")
            if frames and pixels.size != frames[0].size:
                continue
            frames.append(pixels)
            masks.append(_mask(frame))
    return Result(outputs=(tuple(frames), tuple(masks)))


def lenient(read: Callable[[], T]) -> T:
    """Read again, as far as possible, a file that Pillow refused as truncated."""
    try:
        return read()
    except (OSError, UnidentifiedImageError, ValueError):
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            return read()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _mask(frame: Image.Image) -> Image.Image:
    if frame.mode == "P" and "transparency" in frame.info:
        frame = frame.convert("RGBA")
    if "A" in frame.getbands():
        return ImageChops.invert(frame.getchannel("A"))
    return Image.new("L", _NO_MASK)


def _images_of(folders: Folders, _dialect: Dialect) -> Schema:
    Image.init()  # so that the registry of suffixes is whole
    known = Image.registered_extensions()
    names = sorted(path.name for path in folders.input.iterdir() if path.suffix.lower() in known and path.is_file())
    return {"required": {"image": [names, {"image_upload": True}]}}


def _missing(folders: Folders, image: str) -> str:
    path = folders.find(image)
    return "" if path and path.exists() else f"Invalid image file: {image}"


def _content(folders: Folders, inputs: Mapping[str, Any]) -> str:
    path = folders.find(inputs["image"])
    if path is None:
        raise FileNotFoundError(inputs["image"])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def empty_image(_context: Context, *, width: int, height: int, batch_size: int = 1, color: int = 0) -> Result:
    frame = Image.new("RGB", (width, height), (color >> 16 & 255, color >> 8 & 255, color & 255))
    return Result(outputs=((frame,) * batch_size,))


def image_scale(_context: Context, *, image: Frames, upscale_method: str, width: int, height: int, crop: str) -> Result:
    """A side of 0 follows from the other one; both 0: as it was."""
    if not width and not height:
        return Result(outputs=(image,))
    old_width, old_height = image[0].size
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    box = _centre((old_width, old_height), (width, height)) if crop == "center" else (0, 0, old_width, old_height)
    method = METHODS[upscale_method]
    return Result(outputs=(each(lambda frame: frame.crop(box).resize((width, height), method), image),))


def _centre(old: tuple[int, int], new: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of `old` that has the proportions of `new`: left, top, right, bottom."""
    old_aspect, new_aspect = old[0] / old[1], new[0] / new[1]
    left = top = 0
    if old_aspect > new_aspect:
        left = round((old[0] - old[0] * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        top = round((old[1] - old[1] * (old_aspect / new_aspect)) / 2)
    return left, top, old[0] - left, old[1] - top


def image_scale_by(_context: Context, *, image: Frames, upscale_method: str, scale_by: float) -> Result:
    size = (round(image[0].width * scale_by), round(image[0].height * scale_by))
    return Result(outputs=(each(lambda frame: frame.resize(size, METHODS[upscale_method]), image),))


def image_invert(_context: Context, *, image: Frames) -> Result:
    return Result(outputs=(each(ImageChops.invert, image),))


def repeat_batch(_context: Context, *, image: Frames, amount: int) -> Result:
    return Result(outputs=(image * amount,))


def _side(least: int) -> list[Any]:
    return ["INT", {"default": 512, "min": least, "max": MAX_SIDE, "step": 1}]


NODES = (
    Node(
        name="LoadImage",
        title="Load Image",
        category="image",
        schema=_images_of,
        returns=("IMAGE", "MASK"),
        run=load_image,
        checks={"image": _missing},
        fingerprint=_content,
    ),
    Node(
        name="EmptyImage",
        title="Empty Image",
        category="image",
        schema=fixed(
            {
                "width": _side(1),
                "height": _side(1),
                "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
                "color": ["INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}],
            }
        ),
        returns=("IMAGE",),
        run=empty_image,
    ),
    Node(
        name="ImageScale",
        title="Upscale Image",
        category="image/upscaling",
        schema=fixed(
            {
                "image": ["IMAGE"],
                "upscale_method": [list(METHODS)],
                "width": _side(0),
                "height": _side(0),
                "crop": [["disabled", "center"]],
            }
        ),
        returns=("IMAGE",),
        run=image_scale,
    ),
    Node(
        name="ImageScaleBy",
        title="Upscale Image By",
        category="image/upscaling",
        schema=fixed(
            {
                "image": ["IMAGE"],
                "upscale_method": [list(METHODS)],
                "scale_by": ["FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}],
            }
        ),
        returns=("IMAGE",),
        run=image_scale_by,
    ),
    Node(
        name="ImageInvert",
        title="Invert Image Colors",
        category="image/color",
        schema=fixed({"image": ["IMAGE"]}),
        returns=("IMAGE",),
        run=image_invert,
    ),
    Node(
        name="RepeatImageBatch",
        title="Repeat Image Batch",
        category="image/batch",
        module="comfy_extras.nodes_images",
        schema=fixed({"image": ["IMAGE", {}], "amount": ["INT", {"default": 1, "min": 1, "max": 4096}]}),
        returns=("IMAGE",),
        run=repeat_batch,
    ),
)
