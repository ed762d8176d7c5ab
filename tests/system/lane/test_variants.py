"""Which variant each lane renders: by its card, by what is on the disk, by the operator."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from miner.comfy.replies import Stats
from miner.config.bundled import WORKFLOWS
from miner.dashboard.view import variants_of
from miner.models.folders import ModelFolders
from miner.task.errors import ConfigError
from miner.worker.lane.capabilities import Capabilities
from miner.workflows import load_library
from tests.support.paths import RECORDINGS

LIBRARY = load_library([WORKFLOWS], ids={})
FLUX = LIBRARY.get("flux-lora")
FILES = {one.variant: {model.name for model in one.manifest.models} for one in FLUX.variants}
EVERYTHING = set().union(*FILES.values())
GB = 10**9


@pytest.fixture(scope="module")
def empty() -> dict[str, Any]:
    """What a real ComfyUI without models answered."""
    info: dict[str, Any] = json.loads((RECORDINGS / "object_info-0.33.0.json").read_text(encoding="utf-8"))
    return info


def with_files(empty: dict[str, Any], names: set[str]) -> dict[str, Any]:
    info = {name: copy.deepcopy(empty[name]) for name in {body["class_type"] for body in FLUX.graph.values()}}
    for body in info.values():
        for name, spec in body["input"]["required"].items():
            if name == "lora_name" or name.startswith(("unet_name", "clip_name", "vae_name")):
                choices = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
                choices += ["a.safetensors"] if name == "lora_name" else sorted(names)
    return info


def card(name: str = "NVIDIA GeForce RTX 4090", gb: int = 24, version: str = "0.33.0") -> Stats:
    device = f"cuda:0 {name} : cudaMallocAsync"
    return Stats(version=version, device=device, on_gpu=True, vram_total=gb * GB, vram_free=0, torch="2.11.0+cu130")


def lane(**more: Any) -> Capabilities:
    return Capabilities(LIBRARY, enabled=["flux-lora"], refuse_unknown=False, **more)


def test_two_lanes_with_two_cards_render_two_variants(empty: dict[str, Any]) -> None:
    ada, ampere, old = lane(), lane(), lane()
    every = with_files(empty, EVERYTHING)
    ada.refresh(every, card())
    ampere.refresh(every, card("NVIDIA A100-SXM4-80GB", 80))
    old.refresh(every, card("Tesla V100-SXM2-16GB", 16))
    lanes = [ada, ampere, old]
    assert [one.workflow("flux-lora").variant for one in lanes] == ["fp8", "bf16", "fp8-cast"]
    assert ada.workflow("flux-lora").fill({}, images={}, prefix="p")["model"]["inputs"]["unet_name"] in FILES["fp8"]
    assert variants_of([(str(n), one.choices["flux-lora"]) for n, one in enumerate([ada, ampere, ada])]) == (
        "fp8 on lane 0, 2: the best that this card can run",
        "bf16 on lane 1: the best that this card can run",
    )


def test_nvml_knows_a_card_whose_name_says_nothing(empty: dict[str, Any]) -> None:
    every = with_files(empty, EVERYTHING)
    for known, variant in (({"NVIDIA X1": (9, 0)}, "fp8"), ({}, "fp8-cast")):
        here = lane(compute_capabilities=lambda known=known: known)
        here.refresh(every, card("NVIDIA X1"))
        assert here.workflow("flux-lora").variant == variant


def test_what_is_complete_is_rendered_until_the_better_is_there(empty: dict[str, Any]) -> None:
    here = lane()
    assert here.workflow("flux-lora").variant == "fp8"  # before the first look
    here.refresh(with_files(empty, set()), card())
    assert here.runnable == ()
    assert "models pull flux-lora" in here.verdicts["flux-lora"][0].cure
    with capture_logs() as logs:
        assert here.refresh(with_files(empty, FILES["from-bf16"]), card())
        assert here.runnable == ("flux-lora",)
        here.refresh(with_files(empty, EVERYTHING - {"clip_l.safetensors"}), card())
        assert here.runnable == ()
        here.refresh(with_files(empty, EVERYTHING), card())
        here.refresh(with_files(empty, EVERYTHING), card())
    told = [(one["variant"], one["reason"]) for one in logs if one["event"] == "workflow_variant"]
    assert [variant for variant, _ in told] == ["from-bf16", "fp8"]
    assert told[0][1].startswith("ready, while fp8 is not: the model flux_dev_fp8_scaled_diffusion_model.safetensors")
    assert told[1][1] == "the best that this card can run"


def test_a_broken_file_of_the_better_one_leaves_the_other(empty: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "diffusion_models" / "flux_dev_fp8_scaled_diffusion_model.safetensors"
    target.parent.mkdir()
    target.write_bytes(b"<!doctype html><html>Sign in</html>")
    here = lane(model_folders=ModelFolders(tmp_path))
    here.refresh(with_files(empty, EVERYTHING), card())
    assert here.workflow("flux-lora").variant == "from-bf16"
    assert "it is a web page" in here.choices["flux-lora"].why


def test_a_pin_is_the_operators_word(empty: dict[str, Any]) -> None:
    pinned = lane(pinned={"flux-lora": ("bf16",)})
    pinned.refresh(with_files(empty, EVERYTHING), card(gb=12))
    assert (pinned.workflow("flux-lora").variant, pinned.runnable) == ("bf16", ("flux-lora",))
    pinned.refresh(with_files(empty, FILES["fp8"]), card())
    assert pinned.runnable == ()
    either = lane(pinned={"flux-lora": ("bf16", "fp8")})
    either.refresh(with_files(empty, FILES["fp8"]), card())
    assert either.workflow("flux-lora").variant == "fp8"
    for wrong in ({"flux-lora": ("fp9",)}, {"flux": ("fp8",)}, {"upscaler": ("fp8",)}):
        with pytest.raises(ConfigError, match="unknown"):
            lane(pinned=wrong)


def test_a_card_too_small_for_every_variant_says_so(empty: dict[str, Any]) -> None:
    here = lane()
    here.refresh(with_files(empty, EVERYTHING), card(gb=8))
    assert here.runnable == ()
    assert [reason.kind for reason in here.verdicts["flux-lora"]] == ["vram"]
