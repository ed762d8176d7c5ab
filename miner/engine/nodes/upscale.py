"""Upscaling with a model: spandrel and torch, on the CPU, in tiles of 512 pixels as ComfyUI does it.

Both are loaded when the first of the nodes runs, never before: together they take seconds and hundreds of megabytes.
"""

from __future__ import annotations

import itertools
from typing import Any

from PIL import Image

from miner.engine.dialect import Dialect
from miner.engine.folders import Folders
from miner.engine.nodes.base import Context, Frames, Node, Result, Schema, fixed

TILE, OVERLAP = 512, 32  # pixels of the input
FOLDER = "upscale_models"


def load_model(context: Context, *, model_name: str) -> Result:
    path = context.folders.model(FOLDER, model_name)
    if path is None:
        raise FileNotFoundError(f"Model in folder '{FOLDER}' with filename '{model_name}' not found.")
    import spandrel

    model = spandrel.ModelLoader(device="cpu").load_from_file(path)
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise ValueError("Upscale model must be a single-image model.")
    model.eval()
    return Result(outputs=(model,))


def upscale(context: Context, *, upscale_model: Any, image: Frames) -> Result:
    import torch

    starts = list(itertools.product(tile_starts(image[0].height), tile_starts(image[0].width)))
    total = len(starts) * len(image)
    steps = itertools.count(1)
    frames = []
    with torch.inference_mode():
        for frame in image:
            tiles = _Blend(frame.size, upscale_model.scale)
            for top, left in starts:
                part = frame.crop((left, top, min(left + TILE, frame.width), min(top + TILE, frame.height)))
                tiles.add(upscale_model(_to_tensor(part)), top, left)
                context.progress(next(steps), total)
            frames.append(tiles.image())
    return Result(outputs=(tuple(frames),))


def tile_starts(length: int) -> list[int]:
    """Where the tiles of a side of `length` pixels begin."""
    return list(range(0, length - OVERLAP, TILE - OVERLAP)) if length > TILE else [0]


class _Blend:
    """Tiles put together: where two overlap, each fades out towards its own edge."""

    def __init__(self, size: tuple[int, int], scale: int) -> None:
        import torch

        width, height = size
        self._scale = scale
        self._sum = torch.zeros(1, 3, height * scale, width * scale)
        self._weight = torch.zeros(1, 1, height * scale, width * scale)

    def add(self, tile: Any, top: int, left: int) -> None:
        """`tile`: floats, 1 × 3 × height × width, already upscaled; `top`, `left`: pixels of the input."""
        height, width = tile.shape[-2:]
        mask = self._fade(height)[:, None] * self._fade(width)
        top, left = top * self._scale, left * self._scale
        self._sum[..., top : top + height, left : left + width] += tile * mask
        self._weight[..., top : top + height, left : left + width] += mask

    def _fade(self, length: int) -> Any:
        """The weights along a side of `length` pixels."""
        import torch

        fade = OVERLAP * self._scale
        if fade >= length:
            return torch.ones(length)
        ramp = (torch.arange(length) + 1).clamp(max=fade) / fade
        return ramp * ramp.flip(0)

    def image(self) -> Image.Image:
        return _to_image(self._sum / self._weight)


def _to_tensor(image: Image.Image) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def _to_image(tensor: Any) -> Image.Image:
    pixels = (tensor[0].permute(1, 2, 0).clamp(0, 1) * 255).byte().contiguous().numpy()
    return Image.fromarray(pixels)


def _models(folders: Folders, _dialect: Dialect) -> Schema:
    return {"required": {"model_name": ["COMBO", {"multiselect": False, "options": folders.model_names(FOLDER)}]}}


NODES = (
    Node(
        name="UpscaleModelLoader",
        title="Load Upscale Model",
        category="model/loaders",
        module="comfy_extras.nodes_upscale_model",
        schema=_models,
        returns=("UPSCALE_MODEL",),
        run=load_model,
    ),
    Node(
        name="ImageUpscaleWithModel",
        title="Upscale Image (using Model)",
        category="image/upscaling",
        module="comfy_extras.nodes_upscale_model",
        schema=fixed({"upscale_model": ["UPSCALE_MODEL", {}], "image": ["IMAGE", {}]}),
        returns=("IMAGE",),
        run=upscale,
    ),
)
