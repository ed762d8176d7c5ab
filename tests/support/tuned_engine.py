"""`python -m tests.support.tuned_engine`: an engine that ComfyUI's flags make faster, wrong, or fail.

Its node DevnetTuned passes an image on: `--fast autotune` makes it ten times as fast, `cublas_ops` inverts the picture,
`fp16_accumulation` runs out of memory, sage attention hangs, and flash attention ends the program at its start. Of its
`weights`, "small" are ten times as fast, and "others" invert the picture.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from PIL import ImageChops

from miner.engine.__main__ import main
from miner.engine.nodes.base import Context, Frames, Node, Result, fixed
from tests.support.engine import make_home
from tests.support.trial_nodes import NODES, fail

SECONDS = 0.15  # by default
KNOWN = ("--use-pytorch-cross-attention", "--use-sage-attention", "--use-flash-attention", "--fast", "autotune")


def tuned(context: Context, *, image: Frames, weights: str) -> Result:
    """As the flags of this process say."""
    if "fp16_accumulation" in sys.argv:
        return fail(context, image=image, kind="out-of-memory")
    fast = "autotune" in sys.argv or weights == "small"
    context.wait(3600.0 if "--use-sage-attention" in sys.argv else SECONDS / (10 if fast else 1))
    if "cublas_ops" in sys.argv or weights == "others":
        image = tuple(ImageChops.invert(frame) for frame in image)
    return Result(outputs=(image,))


def tuned_home(folder: Path) -> Path:
    """A ComfyUI's folder that a worker and a tuning can start."""
    home = make_home(folder, __name__)
    (home / "comfy").mkdir()
    (home / "comfy" / "cli_args.py").write_text("\n".join(f'"{word}"' for word in KNOWN))
    (home / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    return home


if __name__ == "__main__":
    if "--use-flash-attention" in sys.argv:
        sys.stderr.write("To use the `--use-flash-attention` feature, the `flash-attn` package must be installed\n")
        os._exit(255)
    node = Node(
        name="DevnetTuned",
        title="Tuned (devnet)",
        category="devnet",
        module=__name__,
        schema=fixed({"image": ["IMAGE"], "weights": ["STRING", {"default": ""}]}),
        returns=("IMAGE",),
        run=tuned,
    )
    raise SystemExit(main((*NODES, node)))
