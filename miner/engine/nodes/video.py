"""The video nodes, with PyAV. H.264 in MP4, and VP9 or AV1 in WebM; no sound, as no node here makes any.

PyAV is loaded when the first of them runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

from miner.engine.dialect import Dialect
from miner.engine.folders import Folders
from miner.engine.nodes.base import SAVES, Context, Frames, Node, Result, Schema, fixed
from miner.engine.nodes.saving import one_file

_CONTAINERS = ("auto", "mp4")
_CODECS = ("auto", "h264")
_WEBM_ENCODERS = {"vp9": ("libvpx-vp9", "yuv420p", {}), "av1": ("libsvtav1", "yuv420p10le", {"preset": "6"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A VIDEO: frames, and how many per second."""

    frames: Frames
    fps: Fraction


def create_video(_context: Context, *, images: Frames, fps: float, bit_depth: int = 8) -> Result:
    del bit_depth  # 8 is all that the schema lets through
    return Result(outputs=(Video(frames=images, fps=Fraction(fps)),))


def save_video(
    context: Context,
    *,
    video: Video,
    filename_prefix: str,
    format: str,  # noqa: A002 - ComfyUI's name
    codec: str = "auto",
    **nested: Any,
) -> Result:
    """`codec` may also come as `format.codec`, the newer ComfyUI's name for it."""
    codec = nested.get("format.codec", codec)
    if format not in _CONTAINERS or codec not in _CODECS:
        raise ValueError(f"The embedded engine writes H.264 in MP4 alone, and not {codec} in {format}")
    slot = context.folders.slot(filename_prefix, kind="output", size=video.frames[0].size)
    name = f"{slot.stem}_{slot.counter:05}_.mp4"
    _encode(
        slot.folder / name,
        video.frames,
        fps=video.fps,
        encoder=("h264", "yuv420p", {}),
        embedded=context.embedded,
        container={"movflags": "use_metadata_tags"},  # or else MP4 drops the keys that it does not know
    )
    return Result(outputs=(video,), shown=one_file(name, slot.subfolder))


def save_webm(context: Context, *, images: Frames, filename_prefix: str, codec: str, fps: float, crf: float) -> Result:
    slot = context.folders.slot(filename_prefix, kind="output", size=images[0].size)
    name = f"{slot.stem}_{slot.counter:05}_.webm"
    encoder, pixels, options = _WEBM_ENCODERS[codec]
    _encode(
        slot.folder / name,
        images,
        fps=Fraction(round(fps * 1000), 1000),
        encoder=(encoder, pixels, options | {"crf": str(crf)}),
        embedded=context.embedded,
        container={},
    )
    return Result(outputs=(images,), shown=one_file(name, slot.subfolder))


def _encode(
    path: Path,
    frames: Frames,
    *,
    fps: Fraction,
    encoder: tuple[str, str, dict[str, str]],  # its name, its pixel format, its options
    embedded: Mapping[str, Any],
    container: dict[str, str],
) -> None:
    av: Any = import_module("av")  # takes 0.2 s
    name, pixels, options = encoder
    with av.open(str(path), mode="w", options=container) as output:
        for key, value in embedded.items():
            output.metadata[key] = json.dumps(value)
        stream = output.add_stream(name, rate=Fraction(round(fps * 1000), 1000))
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = pixels
        stream.options = options
        if "crf" in options:
            stream.bit_rate = 0  # so that quality alone decides
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_image(frame).reformat(format=pixels)))
        output.mux(stream.encode())


def _create_video_schema(_folders: Folders, dialect: Dialect) -> Schema:
    required = {"images": ["IMAGE", {}], "fps": ["FLOAT", {"default": 30.0, "min": 1.0, "max": 120.0, "step": 1.0}]}
    if not dialect.dynamic_combos:
        return {"required": required}
    return {"required": required, "optional": {"bit_depth": ["INT", {"default": 8, "min": 8, "max": 8, "step": 2}]}}


def _save_video_schema(_folders: Folders, dialect: Dialect) -> Schema:
    required: dict[str, list[Any]] = {
        "video": ["VIDEO", {}],
        "filename_prefix": ["STRING", {"default": "video/ComfyUI", "multiline": False}],
    }
    if dialect.dynamic_combos:
        codec = ["COMFY_DYNAMICCOMBO_V3", {"options": _dynamic(_CODECS, {})}]
        formats = ["COMFY_DYNAMICCOMBO_V3", {"options": _dynamic(_CONTAINERS, {"codec": codec})}]
        return {"required": required | {"format": formats}, "optional": {"codec": codec}, "hidden": SAVES}
    combos = {"format": _CONTAINERS, "codec": _CODECS}
    specs = {
        name: ["COMBO", {"default": "auto", "multiselect": False, "options": list(options)}]
        for name, options in combos.items()
    }
    return {"required": required | specs, "hidden": SAVES}


def _dynamic(keys: tuple[str, ...], inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "inputs": {"required": inputs}} for key in keys]


NODES = (
    Node(
        name="CreateVideo",
        title="Create Video",
        category="video",
        module="comfy_extras.nodes_video",
        schema=_create_video_schema,
        returns=("VIDEO",),
        run=create_video,
    ),
    Node(
        name="SaveVideo",
        title="Save Video",
        category="video",
        module="comfy_extras.nodes_video",
        schema=_save_video_schema,
        returns=("VIDEO",),
        return_names=("video",),
        run=save_video,
        saves=True,
    ),
    Node(
        name="SaveWEBM",
        title="Save WEBM",
        category="video",
        module="comfy_extras.nodes_video",
        schema=fixed(
            {
                "images": ["IMAGE", {}],
                "filename_prefix": ["STRING", {"default": "ComfyUI", "multiline": False}],
                "codec": ["COMBO", {"multiselect": False, "options": list(_WEBM_ENCODERS)}],
                "fps": ["FLOAT", {"default": 24.0, "min": 0.01, "max": 1000.0, "step": 0.01}],
                "crf": ["FLOAT", {"default": 32.0, "min": 0, "max": 63.0, "step": 1}],
            },
            hidden=SAVES,
        ),
        returns=("IMAGE",),
        return_names=("images",),
        run=save_webm,
        saves=True,
    ),
)
