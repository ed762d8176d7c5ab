"""What ComfyUI says of torch, CUDA and kernels while it starts, and which of it means that an image is built wrong.

Promises: pure. The lines are those of 0.3.64 and 0.33.0; whatever else either logs as a warning or an error and names
torch, CUDA or kernels counts too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

KNOWN = (
    # comfy/quant_ops.py, comfy/float.py
    "You need pytorch with cu130 or higher",
    "Failed to import comfy_kitchen",
    "Failed to import triton",
    "comfy_kitchen does not support",
    # main.py
    "Torch already imported, torch should never be imported before this point",
    "Unsupported Pytorch detected. DynamicVRAM support requires",
    "No working comfy-aimdo install detected",
    "this card most likely does not support cuda-malloc",
    "You are using a python version older than",
    # comfy/model_management.py, comfy/ops.py, comfy/rmsnorm.py, comfy/utils.py
    "could not set allow_fp16_bf16_reduction_math_sdp",
    "Could not pick default device",
    "This version of xformers has a major bug",
    "Torch version too old to set sdpa backend priority",
    "Could not set sdpa backend priority",
    "Please update pytorch to use native RMSNorm",
    "upgrade your pytorch to 2.4 or newer",
    # comfy/ldm/modules/attention.py
    "the `sageattention` package must be installed first",
    "the `flash-attn` package must be installed first",
    "Comfy Kitchen attention is unavailable",
    "is unavailable; using PyTorch attention",
    # comfy/ldm/**/vae, nodes.py
    "torchaudio missing",
    "IMPORT FAILED",
    # torch, triton and the loader
    "CUDA initialization",
    "no kernel image is available",
    "is not compatible with the current PyTorch installation",
    "cannot open shared object file",
)
_SUBJECT = re.compile(r"torch|cuda|kernel|kitchen|aimdo|triton|cudnn|cublas|nvrtc|fp8|nvfp4|sdpa|attention|vram", re.I)
_LEVEL = re.compile(r"^\[(?:WARNING|ERROR|CRITICAL)\]|\b(?:User|Future|Deprecation|Runtime)Warning:")
_BACKEND = re.compile(r"Found comfy_kitchen backend cuda: (\{.*\})")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")

WITHOUT_GPU = "CUDA not available on this system"
"""Why comfy-kitchen has no CUDA backend under `--cpu`. It looks for a card only once its library has loaded."""
OLD_CUDA = "You need pytorch with cu130 or higher"
"""What an image for CUDA 12 says, on purpose."""


def complaints(log: str, *, cuda: int) -> list[str]:
    """The lines of a start under `--cpu` that no image for this major release of CUDA should log."""
    lines = [_COLOR.sub("", line).strip() for line in log.splitlines()]
    found = [line for line in lines if _complains(line)]
    if cuda < 13:
        found = [line for line in found if OLD_CUDA not in line]
    return [*found, *_of_kernels(lines, cuda)]


def _complains(line: str) -> bool:
    return any(known in line for known in KNOWN) or bool(_LEVEL.search(line) and _SUBJECT.search(line))


def _of_kernels(lines: list[str], cuda: int) -> Iterator[str]:
    """What is wrong with the library of fast kernels, which only a line of level INFO tells."""
    backends = [ast.literal_eval(found[1]) for line in lines if (found := _BACKEND.search(line))]
    if not backends:
        yield "no line about comfy-kitchen's CUDA backend: has ComfyUI started?"
    for backend in backends:
        reason = backend["unavailable_reason"]
        if not backend["available"] and reason != WITHOUT_GPU:
            yield f"comfy-kitchen's CUDA kernels do not load: {reason}"
        if cuda >= 13 and backend["disabled"]:
            yield "comfy-kitchen's CUDA kernels are switched off"
