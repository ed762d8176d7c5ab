from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from miner.comfy.launch import Launch
from miner.comfy.process import ComfyProcess
from miner.workflows import Library, load_library
from tests.support.paths import RECORDINGS, ROOT
from tests.unit.comfy.processes import LONG, Make, NoJitter, Orphan, is_running, killed

VERSIONS = ["0.3.64", "0.33.0"]

ObjectInfo = dict[str, Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes processes that are ended with the test."""
    with ExitStack() as stack:

        def make_one(launch: Launch, **settings: object) -> ComfyProcess:
            defaults = {"state": tmp_path, "start_timeout": LONG, "rng": NoJitter()}
            process = ComfyProcess(launch, **(defaults | settings))  # type: ignore[arg-type]
            stack.callback(process.kill)
            return process

        yield make_one


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[Orphan]:
    """A stand-in whose owner was killed; returns its process id."""
    pids: list[int] = []

    def make_orphan(port: int, *flags: str) -> int:
        command = [sys.executable, "-m", "tests.unit.comfy.owner", str(port), str(tmp_path), *flags]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            said = owner.stdout.readline()
            owner.kill()
        pids.append(int(said))
        return pids[-1]

    yield make_orphan
    for pid in filter(is_running, pids):
        killed(pid)


@pytest.fixture(scope="session")
def bundled() -> Library:
    return load_library([ROOT / "workflows"], ids={})


@pytest.fixture(scope="session", params=VERSIONS)
def recorded(request: pytest.FixtureRequest) -> ObjectInfo:
    """An /object_info as a real ComfyUI without any model answered it."""
    info: ObjectInfo = json.loads((RECORDINGS / f"object_info-{request.param}.json").read_text(encoding="utf-8"))
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
