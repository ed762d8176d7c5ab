"""`xalora-miner doctor --torch`, as the image's entry point runs it, with a ComfyUI whose Python tells of a torch."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from miner.cli.main import app

TOO_OLD = {
    "torch": "2.14.1+cu130",
    "cuda": "13.0",
    "arches": ["sm_75", "sm_120"],
    "driver_cuda": "12.8",
    "gpus": [],
    "problem": "The NVIDIA driver on your system is too old (found version 12080).",
}


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("facts", "args", "code", "said"),
    [
        (TOO_OLD, "", 2, "runs CUDA up to 12: use the image tagged cu126"),
        (
            {**TOO_OLD, "driver_cuda": "13.0", "problem": "CUDA unknown error"},
            "",
            1,
            "no GPU was found: CUDA unknown error",
        ),
        (TOO_OLD, "--cpu", 0, ""),
    ],
)
def test_it_says_in_one_line_why_torch_cannot_use_the_gpu(tmp_path, monkeypatch, facts, args, code, said):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(facts)}'\n")
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for name, value in {"STATE_DIR": tmp_path, "COMFYUI_HOME": tmp_path, "COMFYUI_PYTHON": python}.items():
        monkeypatch.setenv(f"XALORA_{name}", str(value))
    if args:
        monkeypatch.setenv("XALORA_COMFYUI_ARGS", args)
    ended = CliRunner().invoke(app, ["doctor", "--torch"])
    assert ended.exit_code == code, ended.output
    assert len(ended.output.splitlines()) == bool(said)
    assert said in ended.output
