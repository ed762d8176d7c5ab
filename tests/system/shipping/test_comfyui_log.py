"""Which lines of ComfyUI's start `make image-check` fails on."""

from __future__ import annotations

import pytest

from tests.system.shipping.comfyui_log import complaints


def kitchen(*, disabled=False, available=False, reason="CUDA not available on this system"):
    """0.33.0's line about its fast kernels, shortened."""
    facts = {"available": available, "disabled": disabled, "unavailable_reason": reason, "capabilities": []}
    return f"\x1b[32m[INFO]\x1b[0m Found comfy_kitchen backend cuda: {facts}"


CLEAN = f"""{kitchen()}
[INFO] Found comfy_kitchen backend triton: {{'available': False, 'disabled': True, 'unavailable_reason': 'Neither'}}
[INFO] Checkpoint files will always be loaded safely.
[INFO] Total VRAM 24106 MB, total RAM 24106 MB
[INFO] pytorch version: 2.14.1+cu130
[INFO] Set vram state to: DISABLED
[INFO] Device: cpu
[INFO] Using sub quadratic optimization for attention, if you have memory or speed issues try using: --use-split-cross-…
[INFO] No OpenGL_accelerate module loaded: No module named 'OpenGL_accelerate'
[INFO] To see the GUI go to: http://127.0.0.1:8188
"""
OLD_CUDA = (
    "\x1b[1m\x1b[33m[WARNING]\x1b[0m WARNING: You need pytorch with cu130 or higher to use optimized CUDA operations."
)


def test_a_clean_start_on_the_cpu_has_no_complaint():
    assert complaints(CLEAN, cuda=13) == []
    assert complaints(CLEAN.replace(kitchen(), kitchen(available=True, reason=None)), cuda=13) == []


@pytest.mark.parametrize(
    "line",
    [
        OLD_CUDA,
        "[WARNING] Unsupported Pytorch detected. DynamicVRAM support requires Pytorch version 2.8 or later.",
        "[ERROR] Failed to import comfy_kitchen, Error: No module named 'comfy_kitchen', fp8 and fp4 support",
        "[WARNING] IMPORT FAILED: nodes_audio.py",
        "Warning, could not set allow_fp16_bf16_reduction_math_sdp",  # 0.3.64 logs no level
        "Torch version too old to set sdpa backend priority.",
        "/opt/ComfyUI/.venv/lib/python3.13/site-packages/torch/cuda/__init__.py:182: UserWarning: The NVIDIA driver is",
        "[WARNING] Something new about torch that no version says today",
        "OSError: libcudart.so.13: cannot open shared object file: No such file or directory",
    ],
)
def test_a_warning_about_torch_cuda_or_kernels_is_one(line):
    assert len(complaints(CLEAN + line + "\n", cuda=13)) == 1


@pytest.mark.parametrize(
    "line", ["[WARNING] no models folder for clip_vision", "[INFO] CUDA graphs: off", "got prompt"]
)
def test_other_lines_are_none(line):
    assert complaints(CLEAN + line + "\n", cuda=13) == []


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (kitchen(disabled=True), "switched off"),
        (kitchen(reason="libcublasLt.so.13: version not found"), "do not load: libcublasLt.so.13"),
        ("", "has ComfyUI started?"),
    ],
)
def test_fast_kernels_that_do_not_load_are_a_complaint(line, word):
    (complaint,) = complaints(CLEAN.replace(kitchen(), line), cuda=13)
    assert word in complaint


def test_an_image_for_cuda_12_has_no_fast_kernels_on_purpose():
    log = CLEAN.replace(kitchen(), kitchen(disabled=True)) + OLD_CUDA
    assert complaints(log, cuda=12) == []
    assert len(complaints(log, cuda=13)) == 2
