"""ComfyUI: whether it answers, and whether a managed one could start."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from miner.comfy.launch import Launch, child_environment
from miner.config.address import mask_url
from miner.doctor.facts import ComfyStatus, Facts
from miner.doctor.report import bad, good, note, of_error, warning
from miner.machine.software import version_of
from miner.machine.tuning import Tuned, tuned_for
from miner.telemetry.health import Mark
from miner.worker.layout import gpus_of

TIMEOUT = 60.0  # seconds for ComfyUI's Python to list its packages; a cold start from a slow disk takes ten

_PACKAGES = """
import importlib.metadata, json, pathlib, platform, re, sys
lines = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
names = [match[0] for match in map(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*").match, lines) if match]
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
print(json.dumps({"python": platform.python_version(), "packages": {name: version(name) for name in names}}))
"""


def comfyui(facts: Facts) -> Iterator[Mark]:
    """Every ComfyUI that renders tasks. Blocks until they answer; a managed one is not started."""
    if (error := facts.layout().error) is not None:
        yield of_error("ComfyUI", error)
        return
    if facts.embedded:
        cure = "set XALORA_COMFYUI_HOME, or XALORA_COMFYUI_URL for a running one"
        says = "not set; the embedded engine runs image nodes on the CPU, and upscaling models with torch"
        yield warning("ComfyUI", says, cure)
    found = facts.comfyuis()
    if facts.managed and found and not found[0].stats and (launch := found[0].placement.launch):
        yield from could_start(launch)
    if facts.managed:
        yield from tuning([tuned_for(facts.settings, gpu) for gpu in gpus_of(facts.settings)])
    for one in found:
        name = "Embedded engine" if facts.embedded else f"ComfyUI {one.placement.name}" if len(found) > 1 else "ComfyUI"
        yield from _answering(name, one, managed=facts.managed)


def tuning(lanes: Iterable[Tuned]) -> Iterator[Mark]:
    """What `bench --tune` chose for each kind of card. Pure."""
    for card, one in {one.choice.card if one.choice else "": one for one in lanes}.items():
        name = f"Tuning of {card}" if card else "Tuning"
        if one.stale:
            yield warning(name, one.says(), one.cure)
        else:
            yield note(name, one.says(), one.cure) if one.cure else good(name, one.says())


def _answering(name: str, found: ComfyStatus, *, managed: bool) -> Iterator[Mark]:
    placement = found.placement
    if found.stats is not None:
        version = found.stats.version or "of an unknown version"
        says = f"{version} answers at {mask_url(placement.url)}, on {found.stats.device or 'an unknown device'}"
        slow = placement.launch is None and not found.stats.on_gpu
        cure = "check its log for GPU errors at its start"
        yield warning(name, f"{says}: it renders on the CPU", cure) if slow else good(name, says)
    elif managed:
        yield note(name, f"not running; the miner starts it at {placement.url}")
    elif found.error is not None:
        yield of_error(name, found.error)
    if found.error is None:
        yield from folders(name, found)


def folders(name: str, found: ComfyStatus) -> Iterator[Mark]:
    """The folders of an external ComfyUI in the settings."""
    if found.placement.launch is not None:
        return
    for key, path in (("output_dir", found.placement.output_dir), ("input_dir", found.placement.input_dir)):
        if path is not None and not (path.is_dir() and os.access(path, os.W_OK)):
            cure = f"set it to ComfyUI's own folder, writable for this user, or remove [comfyui] {key}"
            yield warning(name, f"[comfyui] {key} {path} is not a writable folder", cure)


def could_start(launch: Launch) -> Iterator[Mark]:
    """Whether ComfyUI is installed and its Python has the required packages. Runs that Python briefly."""
    home, python = launch.cwd, launch.argv[0]
    yield good("ComfyUI's home", f"{version_of(home) or 'an unknown version'} in {home}")
    name, requirements = "ComfyUI's Python", home / "requirements.txt"
    if not requirements.is_file():
        yield note(name, f"{home} has no requirements.txt to check {python} against")
        return
    command = [python, "-c", _PACKAGES, str(requirements)]
    env = child_environment(os.environ, None)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=env, check=False)
        told = json.loads(ended.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        cure = "set XALORA_COMFYUI_PYTHON to the Python of its environment"
        yield bad(name, f"{python} cannot be run: {reason}", cure)
        return
    yield packages(python, told["python"], told["packages"], requirements)


def packages(python: str, version: str, installed: dict[str, str], requirements: Path) -> Mark:
    """Pure. `installed`: the version, or "", of each required package."""
    name, missing = "ComfyUI's Python", sorted(package for package, found in installed.items() if not found)
    install = f"{python} -m pip install -r {requirements}"
    if "torch" in missing:
        cure = f"install the torch for your GPU (https://pytorch.org/get-started/locally/), then {install}"
        return bad(name, f"{python} ({version}) has no torch", cure)
    if missing:
        return warning(name, f"{python} ({version}) is missing {', '.join(missing)}", install)
    return good(name, f"{version} with torch {installed.get('torch', 'unknown')}, and all of ComfyUI's requirements")
