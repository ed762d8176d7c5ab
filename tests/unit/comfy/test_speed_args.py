"""Which of ComfyUI's arguments for speed go together."""

from __future__ import annotations

import pytest

from miner.comfy.speed_args import beside, excludes, joined

FAST = ("--fast", "autotune")


@pytest.mark.parametrize(
    ("own", "added", "kept", "won"),
    [
        ((), (), (), []),
        (("--cpu",), FAST, FAST, []),
        (("--fast",), FAST, (), ["--fast"]),
        (("--fast=autotune",), ("--use-sage-attention",), ("--use-sage-attention",), []),
        (("--fas", "fp8_matrix_mult"), FAST, (), ["--fas"]),  # argparse takes abbreviations
        (("--deterministic",), (*FAST, "--use-sage-attention"), ("--use-sage-attention",), ["--deterministic"]),
        (("--use-split-cross-attention",), ("--use-sage-attention", *FAST), FAST, ["--use-split-cross-attention"]),
        (("--bf16-unet",), ("--fp8_e4m3fn-unet", *FAST), FAST, ["--bf16-unet"]),
        (("--force-fp32",), ("--fp8_e4m3fn-unet",), (), ["--force-fp32"]),
        (("--disable-async-offload",), ("--async-offload",), (), ["--disable-async-offload"]),
        (("--disable-triton-backend",), ("--enable-triton-backend",), (), ["--disable-triton-backend"]),
        (("--lowvram", "--", "--reserve-vram", "2"), FAST, FAST, []),
    ],
)
def test_the_operators_own_arguments_win(own, added, kept, won):
    found, dropped = beside(own, added)
    assert found == kept
    assert [reason for _, reason in dropped] == won


def test_what_is_left_out_is_named_with_its_values():
    assert beside(["--fast"], ["--fast", "autotune", "cublas_ops"])[1] == (("--fast autotune cublas_ops", "--fast"),)
    assert excludes(["autotune", "--cpu"], "--fast") == ""


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([], ()),
        ([FAST, ("--fast", "cublas_ops", "autotune")], ("--fast", "autotune", "cublas_ops")),
        ([("--use-sage-attention",), FAST, ("--use-sage-attention",)], ("--use-sage-attention", *FAST)),
    ],
)
def test_parts_become_one_list_with_each_flag_once(parts, whole):
    assert joined(parts) == whole
