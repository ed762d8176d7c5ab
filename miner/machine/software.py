"""What a tuning depends on: the card, its driver, ComfyUI, and the Python packages that it computes with.

It imports none of them: ComfyUI's Python reads its packages' metadata, in a tenth of a second.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from miner.comfy.launch import child_environment
from miner.machine.gpu import GpuHealth, Nvml

PACKAGES = ("torch", "xformers", "sageattention", "flash-attn", "comfy-kitchen", "triton", "cublas-ops")
_TIMEOUT = 60.0  # seconds; a cold start of Python from a slow disk takes ten
_PROGRAM = """
import importlib.metadata, importlib.util, json, pathlib, re, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
spec = importlib.util.find_spec("torch")  # its metadata may leave out the CUDA that it is built for
for place in spec.submodule_search_locations or () if spec else ():
    told = re.search(r"__version__ = '([^']+)'", (pathlib.Path(place) / "version.py").read_text())
    if told:
        found["torch"] = told[1]
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """One ComfyUI's card and software. Equal ones render equally fast."""

    card: str = ""  # NVML's name; "" without NVML
    driver: str = ""  # NVIDIA's; "" without NVML
    comfyui: str = ""  # version; "" if unknown
    packages: Mapping[str, str] = field(default_factory=dict)  # the installed ones of PACKAGES, with their version


def basis(home: Path, python: Path, gpu: str | None, *, environ: Mapping[str, str] = os.environ) -> Basis:
    """Of the ComfyUI at `home` on `gpu` (`comfyui.gpus`; None: ComfyUI's choice). Blocks for some 0.1 s."""
    nvml = Nvml()
    cards, driver = nvml.health() or (), nvml.driver()
    nvml.close()
    return Basis(
        card=card_of(gpu or environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0], cards),
        driver=driver,
        comfyui=version_of(home),
        packages=packages_of(home, python),
    )


def card_of(gpu: str, cards: Sequence[GpuHealth]) -> str:
    """The name of the card `gpu`, an index or a UUID; the only name, or all names, where that does not tell. Pure."""
    named = [card.name for card in cards if gpu and (gpu == str(card.index) or card.uuid.startswith(gpu))]
    return " + ".join(named if len(named) == 1 else dict.fromkeys(card.name for card in cards))


def packages_of(home: Path, python: Path) -> dict[str, str]:
    """The versions of PACKAGES in ComfyUI's Python; none if it cannot be run. Blocks."""
    program = str(python if len(python.parts) == 1 else python.absolute())
    command = [program, "-c", _PROGRAM, *PACKAGES]
    env = child_environment(os.environ, None)
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, env=env, cwd=home, check=False
        )
        found = json.loads(ended.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return {}
    return {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}


def version_of(home: Path) -> str:
    """The version in ComfyUI's own file, or ""."""
    try:
        text = (home / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found[1] if found else ""
