"""The nodes that write pictures: PNG, a file a frame, and animated WebP. With Pillow alone."""

from __future__ import annotations

import json
import secrets

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from miner.engine.dialect import Dialect
from miner.engine.folders import Folders
from miner.engine.nodes.base import SAVES, Context, Frames, Node, Result, Schema, fixed

_PNG_EFFORT = {"output": 4, "temp": 1}  # zlib levels
_WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
_TEMP_PREFIX = "ComfyUI_temp_" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(5))
_EXIF_MAKE, _EXIF_MODEL = 0x010F, 0x0110  # where ComfyUI puts the workflow and the prompt


def save_image(context: Context, *, images: Frames, filename_prefix: str) -> Result:
    return _save_pngs(context, images, filename_prefix, kind="output")


def preview_image(context: Context, *, images: Frames) -> Result:
    return _save_pngs(context, images, _TEMP_PREFIX, kind="temp")


def _save_pngs(context: Context, images: Frames, prefix: str, *, kind: str) -> Result:
    slot = context.folders.slot(prefix, kind=kind, size=images[0].size)
    embedded = PngInfo()
    for key, value in context.embedded.items():
        embedded.add_text(key, json.dumps(value))
    files = []
    for number, image in enumerate(images):
        name = f"{slot.stem.replace('%batch_num%', str(number))}_{slot.counter + number:05}_.png"
        image.save(slot.folder / name, pnginfo=embedded, compress_level=_PNG_EFFORT[kind])
        files.append({"filename": name, "subfolder": slot.subfolder, "type": kind})
    return Result(outputs=(images,), shown={"images": files})


def save_animated_webp(
    context: Context, *, images: Frames, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str
) -> Result:
    slot = context.folders.slot(filename_prefix, kind="output", size=images[0].size)
    name = f"{slot.stem}_{slot.counter:05}_.webp"
    images[0].save(
        slot.folder / name,
        save_all=True,
        append_images=images[1:],
        duration=int(1000 / fps),
        lossless=lossless,
        quality=quality,
        method=_WEBP_METHODS[method],
        exif=_exif(context),
    )
    shown = one_file(name, slot.subfolder)
    if len(images) == 1:
        shown = {"images": shown["images"]} if context.dialect.new_webp else {**shown, "animated": [False]}
    return Result(outputs=(images,), shown=shown)


def one_file(name: str, subfolder: str) -> dict[str, object]:
    """What a node shows that wrote frames into one file."""
    return {"images": [{"filename": name, "subfolder": subfolder, "type": "output"}], "animated": [True]}


def _exif(context: Context) -> Image.Exif:
    exif = Image.Exif()
    tag = _EXIF_MAKE
    for key, value in context.embedded.items():
        if key == "prompt":
            exif[_EXIF_MODEL] = f"prompt:{json.dumps(value)}"
        else:
            exif[tag] = f"{key}:{json.dumps(value)}"
            tag -= 1
    return exif


def _animated_webp_schema(_folders: Folders, dialect: Dialect) -> Schema:
    methods = list(_WEBP_METHODS)
    required = {
        "images": ["IMAGE", {}],
        "filename_prefix": ["STRING", {"default": "ComfyUI"}],
        "fps": ["FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}],
        "lossless": ["BOOLEAN", {"default": True}],
        "quality": ["INT", {"default": 80, "min": 0, "max": 100}],
        "method": ["COMBO", {"multiselect": False, "options": methods}] if dialect.new_webp else [methods],
    }
    return {"required": required, "hidden": SAVES}


NODES = (
    Node(
        name="SaveImage",
        title="Save Image",
        category="image",
        schema=fixed({"images": ["IMAGE", {}], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}, hidden=SAVES),
        returns=("IMAGE",),
        return_names=("images",),
        run=save_image,
        saves=True,
    ),
    Node(
        name="PreviewImage",
        title="Preview Image",
        category="image",
        schema=fixed({"images": ["IMAGE"]}, hidden=SAVES),
        returns=("IMAGE",),
        return_names=("images",),
        run=preview_image,
        saves=True,
    ),
    Node(
        name="SaveAnimatedWEBP",
        title="Save Animated WEBP",
        category="image",
        module="comfy_extras.nodes_images",
        schema=_animated_webp_schema,
        returns=("IMAGE",),
        return_names=("images",),
        run=save_animated_webp,
        saves=True,
    ),
)
