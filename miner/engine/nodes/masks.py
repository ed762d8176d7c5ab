"""The nodes that turn masks into images and back, with Pillow alone. A MASK is a tuple of grayscale images."""

from __future__ import annotations

from PIL import Image, ImageChops

from miner.engine.dialect import Dialect
from miner.engine.folders import Folders
from miner.engine.nodes.base import Context, Frames, Node, Result, Schema, fixed

_CHANNELS = ("red", "green", "blue", "alpha")


def mask_to_image(_context: Context, *, mask: Frames) -> Result:
    return Result(outputs=(tuple(frame.convert("RGB") for frame in mask),))


def image_to_mask(_context: Context, *, image: Frames, channel: str) -> Result:
    at = _CHANNELS.index(channel)
    if at >= len(image[0].getbands()):
        raise IndexError(f"index {at} is out of bounds for dimension 3 with size {len(image[0].getbands())}")
    return Result(outputs=(tuple(frame.getchannel(at) for frame in image),))


def join_alpha(_context: Context, *, image: Frames, alpha: Frames) -> Result:
    """A mask is what alpha leaves out. One of another size is scaled."""
    joined = []
    for frame, mask in zip(image, alpha, strict=False):
        whole = frame.convert("RGB")
        whole.putalpha(ImageChops.invert(mask.resize(frame.size, Image.Resampling.BILINEAR)))
        joined.append(whole)
    return Result(outputs=(tuple(joined),))


def _image_to_mask_inputs(_folders: Folders, dialect: Dialect) -> Schema:
    channels = list(_CHANNELS)
    combo = ["COMBO", {"multiselect": False, "options": channels}] if dialect.new_combos else [channels]
    return {"required": {"image": ["IMAGE"], "channel": combo}}


NODES = (
    Node(
        name="MaskToImage",
        title="Convert Mask to Image",
        category="mask",
        module="comfy_extras.nodes_mask",
        schema=fixed({"mask": ["MASK"]}),
        returns=("IMAGE",),
        run=mask_to_image,
    ),
    Node(
        name="ImageToMask",
        title="Convert Image to Mask",
        category="mask",
        module="comfy_extras.nodes_mask",
        schema=_image_to_mask_inputs,
        returns=("MASK",),
        run=image_to_mask,
    ),
    Node(
        name="JoinImageWithAlpha",
        title="Join Image with Alpha",
        category="mask/compositing",
        module="comfy_extras.nodes_compositing",
        schema=fixed({"image": ["IMAGE", {}], "alpha": ["MASK", {}]}),
        returns=("IMAGE",),
        run=join_alpha,
    ),
)
