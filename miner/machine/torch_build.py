"""Which build of torch fits a driver and its cards, and whether the installed one does.

Promises: pure; what is unknown is taken to fit.

Two builds cover the cards that PyTorch has wheels for; the image's tags and PyTorch's indexes have their names.
Sources: PyTorch's RELEASE.md (CUDA 13.0 has kernels for cards of 7.5 to 12.0, CUDA 12.6 of 5.0 to 9.0), and NVIDIA's
table of minor version compatibility (CUDA 13.x needs driver 580, 12.x 525, 11.x 450):
https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from miner.machine.gpu import Gpu, Gpus

Tag = Literal["cu130", "cu126"]
Capability = tuple[int, int]  # (8, 9): Ada
Level = Literal["good", "slow", "unusable"]  # slow: renders, without ComfyUI's fast kernels

FAST_KERNELS = 13
"""The CUDA that ComfyUI's fast kernels need (comfy-kitchen: fp8, NVFP4, int8); `comfy/quant_ops.py` of 0.33.0."""

_OF_DRIVER = ((580, 13), (525, 12), (450, 11))  # the first driver that runs a major release of CUDA
_RUNS: dict[Tag, tuple[int, Capability, Capability]] = {  # major release of CUDA; first card, first newer card
    "cu130": (13, (7, 5), (13, 0)),
    "cu126": (12, (5, 0), (10, 0)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How the installed torch fits the machine."""

    level: Level
    says: str = ""  # why it is not good
    cure: str = ""


def fit(found: Gpus) -> Fit:
    """Whether the installed torch runs on all of the cards, and whether another would be faster."""
    built_for, runs_cuda = _major(found.torch_cuda), driver_cuda(found)
    if built_for is None:  # no torch, or one that is not for NVIDIA
        return Fit(level="good")
    build = f"torch {found.torch} is built for CUDA {found.torch_cuda}"
    if found.source != "torch" and runs_cuda is not None and runs_cuda < built_for:
        driver = f"driver {found.driver}" if found.driver else "the driver"
        return Fit(level="unusable", says=f"{build}; {driver} runs CUDA up to {runs_cuda}", cure=advice(found))
    if found.torchaudio:
        cure = (
            "install torch 2.14.1, torchvision 0.29.1 and torchaudio 2.11.0 together: torchaudio's last release is 2.11"
        )
        return Fit(level="unusable", says=f"ComfyUI cannot import torchaudio: {found.torchaudio}", cure=cure)
    lost = [card for card in found.gpus if not runs(found.torch_arches, card.compute_capability)]
    if lost:
        kernels = " ".join(found.torch_arches)
        says = f"torch {found.torch} has no kernels for {', '.join(map(_named, lost))}, only {kernels}"
        return Fit(level="unusable", says=says, cure=advice(found))
    able = [card for card in found.gpus if card.compute_capability and card.compute_capability >= (7, 5)]
    if built_for < FAST_KERNELS and able:
        says = f"{build}; ComfyUI's fast kernels (fp8, NVFP4, int8) need {FAST_KERNELS}"
        return Fit(level="slow", says=says, cure=_faster(found, able))
    return Fit(level="good")


def complaint(found: Gpus) -> tuple[str, int]:
    """A line for a container's log if torch cannot use the GPU, and an exit code: 2 where only another torch or driver
    helps, 1 if CUDA does not start for another reason, else 0.
    """
    fitting = fit(found)
    if fitting.level == "unusable":
        return f"error: {fitting.says}: {fitting.cure}", 2
    if found.problem:
        return f"warning: {found.problem}", 1
    return "", 0


def driver_cuda(found: Gpus) -> int | None:
    """The newest major release of CUDA that the driver runs; its minor releases need no newer driver."""
    number = _major(found.driver)
    by_number = next((cuda for first, cuda in _OF_DRIVER if number is not None and number >= first), None)
    return _major(found.cuda) or by_number


def tag_of(cuda: int | None, capability: Capability | None) -> Tag | None:
    """The build for a driver that runs `cuda` and a card; None: no build runs there."""
    return next((tag for tag in _RUNS if _fits(tag, cuda, capability)), None)


def _fits(tag: Tag, cuda: int | None, capability: Capability | None) -> bool:
    needed, first, newer = _RUNS[tag]
    return (cuda is None or cuda >= needed) and (capability is None or first <= capability < newer)


def advice(found: Gpus) -> str:
    """What to install for all cards: one build, a newer driver, or a build for each card."""
    cuda = driver_cuda(found)
    capabilities = [card.compute_capability for card in found.gpus] or [None]
    common = next((tag for tag in _RUNS if all(_fits(tag, cuda, one) for one in capabilities)), None)
    if common:
        return _use(common)
    without = [card for card in found.gpus if tag_of(cuda, card.compute_capability) is None]
    if without or not found.gpus:
        return _beyond(without[0] if without else None)
    each = ", ".join(f"{_named(card)}: {tag_of(cuda, card.compute_capability)}" for card in found.gpus)
    return f"no build runs all of these cards: start a miner for each kind, with its own [comfyui] gpus ({each})"


def _use(tag: Tag) -> str:
    return f"use the image tagged {tag}, or torch from https://download.pytorch.org/whl/{tag}"


def _beyond(card: Gpu | None) -> str:
    """What to do about a card that no build runs with this driver."""
    tag = tag_of(None, card.compute_capability if card else None)
    if tag is None:
        return f"leave {_named(card)} out by [comfyui] gpus: neither build has kernels for it" if card else ""
    return f"update NVIDIA's driver to {_driver_of(tag)} or newer; then {_use(tag)}"


def _faster(found: Gpus, able: Sequence[Gpu]) -> str:
    if len(able) < len(found.gpus):
        return f"start a miner of its own, with the image tagged cu130, for {', '.join(map(_named, able))}"
    cuda = driver_cuda(found)
    newer = f"update NVIDIA's driver to {_driver_of('cu130')} or newer; then "
    return (newer if cuda is not None and cuda < FAST_KERNELS else "") + _use("cu130")


def _driver_of(tag: Tag) -> int:
    return next(driver for driver, cuda in _OF_DRIVER if cuda == _RUNS[tag][0])


def runs(arches: Iterable[str], capability: Capability | None) -> bool:
    """Whether kernels that are compiled for `arches` (`torch.cuda.get_arch_list`) run on a card.

    sm_XY runs on cards of its major version from its minor one on, sm_XYa on this version alone; the driver compiles
    compute_XY for later cards (CUDA C++ programming guide, "Compute capabilities"). An unknown list or card runs.
    """
    known = [found for found in map(_arch, arches) if found]
    return not known or capability is None or any(_runs(*one, capability) for one in known)


def _runs(kind: str, arch: Capability, suffix: str, capability: Capability) -> bool:
    if suffix == "a":
        return arch == capability
    if kind == "compute" and not suffix:
        return arch <= capability
    return arch[0] == capability[0] and arch <= capability


def _arch(text: str) -> tuple[str, Capability, str] | None:
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", text)
    return (found[1], (int(found[2]), int(found[3])), found[4]) if found else None


def _named(card: Gpu) -> str:
    of = f", sm_{card.compute_capability[0]}{card.compute_capability[1]}" if card.compute_capability else ""
    return f"GPU {card.index} ({card.name}{of})"


def _major(version: str) -> int | None:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else None
