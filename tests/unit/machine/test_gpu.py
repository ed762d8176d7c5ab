"""The probe on this machine, and how the answers of torch, NVML and ComfyUI are merged."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from miner.comfy.replies import Stats
from miner.config import Settings
from miner.machine.gpu import Gpus, Nvml, User, chosen, merged, parse, probe, probe_for, with_stats

HAS_NVIDIA = shutil.which("nvidia-smi") is not None
UUIDS = ("GPU-5a1e7c1d-0000-4000-8000-000000000001", "GPU-5a1e7c1d-0000-4000-8000-000000000002")


def card(index, name, memory, free, capability, *, uuid=UUIDS[1], **rest):
    """A card in gpu_probe's format; names, sizes and texts are from real cards and drivers."""
    known = {"index": index, "uuid": uuid, "name": name, "memory": memory, "free": free, "capability": capability}
    return known | rest


USERS = [{"pid": 4711, "memory": 495124480}, {"pid": 4712, "memory": None}]
NVML = {
    "driver": "570.133.20",
    "cuda": "12.8",
    "gpus": [
        card(0, "NVIDIA GeForce RTX 4090", 25757220864, 25262096384, [8, 9], uuid=UUIDS[0], users=USERS),
        card(1, "NVIDIA GeForce RTX 3060", 12884901888, 12600000000, [8, 6], users=[]),
    ],
}
SMALL = card(0, "NVIDIA GeForce RTX 3060", 12619218944, None, [8, 6], uuid=UUIDS[1].removeprefix("GPU-"))
TORCH = {"torch": "2.9.1+cu128", "cuda": "12.8", "hip": "", "problem": "", "gpus": [SMALL]}
NO_DRIVER = {"torch": "2.9.1+cu128", "cuda": "12.8", "hip": "", "gpus": [], "problem": "Found no NVIDIA driver"}
NO_TORCH = {"missing": "No module named 'torch'"}
NO_NVML = {"missing": "NVML: NVML Shared Library Not Found"}


@pytest.mark.skipif(HAS_NVIDIA, reason="this machine has a GPU")
def test_no_gpu_is_a_result_with_its_reason():
    found = probe()
    assert (found.gpus, found.source) == ((), "none")
    assert "no GPU was found" in found.problem
    assert "NVML" in found.problem


@pytest.mark.skipif(HAS_NVIDIA, reason="this machine has a GPU")
def test_without_nvml_there_is_no_health():
    nvml = Nvml()
    assert nvml.health() is None
    nvml.close()


@pytest.mark.skipif(not HAS_NVIDIA, reason="this machine has no GPU")
def test_a_real_gpu_is_found_and_sampled():
    found = probe()
    assert found.gpus
    assert found.driver
    nvml = Nvml()
    health = nvml.health()
    nvml.close()
    assert {card.uuid for card in health} >= {gpu.uuid for gpu in found.gpus if gpu.uuid}


@pytest.mark.skipif(not os.environ.get("COMFYUI_PYTHON"), reason="COMFYUI_PYTHON is not set: no Python with torch")
def test_comfyuis_torch_is_found_in_its_own_python():
    assert probe(python=Path(os.environ["COMFYUI_PYTHON"])).torch


def test_a_missing_python_is_named():
    assert "cannot run /nonexistent/python" in probe(python=Path("/nonexistent/python")).problem


def fake_python(folder: Path, script: str) -> Path:
    """A program that is run in place of ComfyUI's Python."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o700)
    return python


def test_a_probe_that_hangs_times_out(tmp_path):
    python = fake_python(tmp_path, "exec sleep 60")
    assert "torch did not answer within 1 s" in probe(python=python, timeout=1.0).problem


def test_a_python_that_fails_is_a_result_with_its_last_line(tmp_path):
    python = fake_python(tmp_path, "echo OSError: libcudart.so.12: cannot open >&2; exit 1")
    assert "failed: OSError: libcudart.so.12: cannot open" in probe(python=python).problem


def test_a_comfyui_that_does_not_answer_is_no_traceback(tmp_path):
    settings = Settings(state={"dir": tmp_path}, comfyui={"url": "http://127.0.0.1:1"})
    found = probe_for(settings)
    assert found.gpus == () or found.source != "comfyui"


def test_no_secret_of_the_miner_reaches_the_python_of_comfyui(tmp_path, monkeypatch):
    told = tmp_path / "env"
    python = fake_python(tmp_path, f'env > {told}\nexec {sys.executable} "$@"')
    monkeypatch.setenv("XALORA_API_KEY", "s3cret")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    probe(python=python)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in told.read_text()
    assert "s3cret" not in told.read_text()


# ---- merging ----------------------------------------------------------------------------------------------------


def test_torchs_cards_count_and_nvml_numbers_them():
    """With CUDA_VISIBLE_DEVICES=1, torch's card 0 is nvidia-smi's 1."""
    found = merged(torch=TORCH, nvml=NVML)
    assert (found.source, found.driver, found.cuda, found.torch) == ("torch", "570.133.20", "12.8", "2.9.1+cu128")
    (gpu,) = found.gpus
    assert (gpu.index, gpu.uuid, gpu.compute_capability) == (1, UUIDS[1], (8, 6))
    assert (gpu.memory_bytes, gpu.free_bytes) == (12619218944, None)


def test_without_torch_nvml_knows_the_cards_and_who_uses_them():
    found = merged(torch=NO_TORCH, nvml=NVML)
    assert (found.source, found.problem) == ("nvml", "")
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060"]
    assert found.gpus[0].users == (User(pid=4711, memory_bytes=495124480), User(pid=4712, memory_bytes=None))


def test_cards_that_torch_cannot_use_are_listed_with_the_reason():
    found = merged(torch={**NO_DRIVER, "problem": "The NVIDIA driver is too old (found version 11040)"}, nvml=NVML)
    assert found.source == "nvml"
    assert found.problem == "torch 2.9.1+cu128 cannot use them: The NVIDIA driver is too old (found version 11040)"


def test_a_card_that_fell_off_the_bus_does_not_hide_the_others():
    nvml = {**NVML, "gpus": [NVML["gpus"][0], {"index": 1, "lost": "GPU is lost"}]}
    found = merged(torch=NO_TORCH, nvml=nvml)
    assert [gpu.index for gpu in found.gpus] == [0]
    assert found.problem == "GPU 1 is lost: GPU is lost"


@pytest.mark.parametrize(
    ("torch", "nvml", "words"),
    [
        (NO_TORCH, NO_NVML, ["No module named 'torch'", "NVML Shared Library Not Found"]),
        (NO_DRIVER, NO_NVML, ["Found no NVIDIA driver"]),
        ({**NO_DRIVER, "cuda": "", "problem": "this torch is built for the CPU only"}, NO_NVML, ["CPU only"]),
    ],
)
def test_no_card_is_reported_with_every_reason(torch, nvml, words):
    found = merged(torch=torch, nvml=nvml)
    assert (found.gpus, found.source) == ((), "none")
    assert all(word in found.problem for word in words)


def test_comfyui_knows_the_card_that_nothing_else_knows():
    stats = Stats(
        version="0.3.26",
        device="cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync",
        on_gpu=True,
        vram_total=25262096384,
        vram_free=24037425152,
    )
    found = with_stats(Gpus(problem="no GPU was found"), stats)
    (gpu,) = found.gpus
    assert (found.source, found.problem) == ("comfyui", "")
    assert (gpu.index, gpu.name, gpu.memory_bytes) == (0, "NVIDIA GeForce RTX 4090", 25262096384)


def test_a_comfyui_on_the_cpu_has_no_card():
    stats = Stats(version="0.33.0", device="cpu", on_gpu=False, vram_total=25276502016, vram_free=1)
    assert with_stats(Gpus(), stats).gpus == ()


@pytest.mark.parametrize(
    ("names", "indexes"), [((), [0, 1]), (("1",), [1]), ((UUIDS[0],), [0]), (("1", UUIDS[0]), [0, 1]), (("7",), [])]
)
def test_the_settings_choose_by_index_or_uuid(names, indexes):
    found = chosen(merged(torch=NO_TORCH, nvml=NVML), names)
    assert [gpu.index for gpu in found.gpus] == indexes
    assert bool(found.problem) == (not indexes)


@pytest.mark.parametrize("printed", ["", "Segmentation fault", "[1, 2]", "{"])
def test_an_invalid_answer_is_a_result(printed):
    assert "the probe printed" in parse(printed)["missing"]


def test_what_a_library_prints_before_the_answer_is_ignored():
    assert parse("hello from some library\n" + json.dumps(NO_NVML) + "\n") == NO_NVML
