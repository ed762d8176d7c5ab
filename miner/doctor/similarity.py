"""How alike two renders are: structural similarity (SSIM), by Pillow alone.

Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE Transactions on Image Processing 13(4), 2004; here
over blocks of 8x8 pixels that do not overlap.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageMath

from miner.comfy.launch import child_environment
from miner.media.drawing import BROKEN
from miner.task.errors import MachineFault

FRAMES = 8  # of a video, evenly spread
_BLOCK = 8  # pixels
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # the paper's constants for 8-bit channels
_VIDEOS = (".mp4", ".webm")
_TIMEOUT = 300.0  # seconds to decode a video

# run by ComfyUI's Python, which has PyAV: the miner's own may not
_PROGRAM = """
import pathlib, sys, av
source, folder, most = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
with av.open(source) as video:
    count = sum(1 for _ in video.decode(video=0))
wanted = {number * count // most for number in range(most)}
with av.open(source) as video:
    for number, frame in enumerate(video.decode(video=0)):
        if number in wanted:
            frame.to_image().save(folder / f"{number:06}.png", compress_level=1)
"""


def similarity(one: Sequence[Image.Image], other: Sequence[Image.Image]) -> float:
    """The lowest SSIM of any frame and color channel: 1.0 for equal ones, about 0.0 for unrelated ones.

    0.0 where their number or sizes differ.
    """
    if not one or [frame.size for frame in one] != [frame.size for frame in other]:
        return 0.0
    return min(
        _ssim(channel, beside)
        for frame, same in zip(one, other, strict=True)
        for channel, beside in zip(frame.split(), same.split(), strict=True)
    )


def _ssim(x: Image.Image, y: Image.Image) -> float:
    """Of two channels of the same size; the mean over their blocks."""
    x, y = x.convert("F"), y.convert("F")
    means = [_blocks(x), _blocks(y), _blocks(_times(x, x)), _blocks(_times(y, y)), _blocks(_times(x, y))]
    ssim = ImageMath.lambda_eval(
        lambda m: (
            (2 * m["x"] * m["y"] + _C1)
            * (2 * (m["xy"] - m["x"] * m["y"]) + _C2)
            / (m["x"] * m["x"] + m["y"] * m["y"] + _C1)
            / (m["xx"] - m["x"] * m["x"] + m["yy"] - m["y"] * m["y"] + _C2)
        ),
        **dict(zip(("x", "y", "xx", "yy", "xy"), means, strict=True)),
    )
    mean = ssim.reduce(ssim.size).getpixel((0, 0))
    return min(mean, 1.0) if isinstance(mean, float) else 0.0  # rounding may exceed 1.0


def _blocks(image: Image.Image) -> Image.Image:
    return image.reduce(min(_BLOCK, *image.size))


def _times(x: Image.Image, y: Image.Image) -> Image.Image:
    product: Image.Image = ImageMath.lambda_eval(lambda m: m["x"] * m["y"], x=x, y=y)
    return product


def frames_of(path: Path, python: str) -> tuple[Image.Image, ...]:
    """The picture, or up to FRAMES frames of the animation or video. `python`: ComfyUI's, for videos. Blocks.

    Raises MachineFault if the file cannot be decoded.
    """
    try:
        if path.suffix in _VIDEOS:
            return _video_frames(path, python)
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            return tuple(_frame(image, number) for number in sorted({n * count // FRAMES for n in range(FRAMES)}))
    except BROKEN as error:
        raise MachineFault(f"the rendered file cannot be decoded: {error}", hint="check ComfyUI's log") from error


def _frame(image: Image.Image, number: int) -> Image.Image:
    image.seek(number)
    return image.convert("RGB")


def _video_frames(path: Path, python: str) -> tuple[Image.Image, ...]:
    with tempfile.TemporaryDirectory(prefix="xalora-frames-") as folder:
        command = [python, "-c", _PROGRAM, str(path), folder, str(FRAMES)]
        env = child_environment(os.environ, None)
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, env=env, check=False)
        except subprocess.TimeoutExpired:
            raise MachineFault(f"decoding the video takes longer than {_TIMEOUT:.0f} s") from None
        if ended.returncode:
            last = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
            raise MachineFault(
                f"ComfyUI's Python cannot decode the video: {last[0]}", hint=f"{python} -m pip install av"
            )
        return tuple(Image.open(png).convert("RGB") for png in sorted(Path(folder).iterdir()))
