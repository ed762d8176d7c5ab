from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from miner.workflows import Library, load_library
from tests.support.paths import ROOT

RECORDED = ROOT.parent / "shared" / "comfyui"  # of two real ComfyUIs; beside the repository, not in it
VERSIONS = ["0.3.64", "0.33.0"]

ObjectInfo = dict[str, Any]


@pytest.fixture(scope="session")
def bundled() -> Library:
    return load_library([ROOT / "workflows"], ids={})


@pytest.fixture(scope="session", params=VERSIONS)
def recorded(request: pytest.FixtureRequest) -> ObjectInfo:
    """An /object_info as a real ComfyUI without any model answered it."""
    file = RECORDED / f"object_info-{request.param}.json"
    if not file.exists():
        pytest.skip(f"{file.name} is not beside the repository")
    info: ObjectInfo = json.loads(file.read_text(encoding="utf-8"))
    return info


@pytest.fixture(scope="session")
def stocked(recorded: ObjectInfo, bundled: Library) -> ObjectInfo:
    """The same with every bundled model and two LoRAs installed."""
    info = copy.deepcopy(recorded)
    names = {model.name for workflow in bundled.workflows for model in workflow.manifest.models}
    for body in info.values():
        for name, spec in body["input"].get("required", {}).items():
            if name in {"unet_name", "vae_name", "clip_name", "clip_name1", "clip_name2", "model_name"}:
                choices_of(spec).extend(sorted(names))
            if name == "lora_name":
                choices_of(spec).extend(["detail.safetensors", "sub/line.safetensors", "old.pt"])
    return info


def choices_of(spec: list[Any]) -> list[Any]:
    """The values of a combo of either form, as the list that the specification holds."""
    choices: list[Any] = spec[0] if isinstance(spec[0], list) else spec[1].setdefault("options", [])
    return choices
