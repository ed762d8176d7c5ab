"""Which variant of a workflow a card renders: other weights or types of weights in the same graph. Pure.

Promises: `ranking` is decided by a card's facts and the manifest alone. A variant that is known not to fit comes only
if the operator pinned it. What is unknown of a card refuses a variant that needs it, unless that leaves none: then the
least demanding comes first.
Never: looks at the disk or asks ComfyUI; a lane takes the first of the ranking that its ComfyUI can run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from miner.task.errors import ConfigError
from miner.telemetry.sizes import GIGABYTE, gb
from miner.workflows.library import Library, Workflow
from miner.workflows.manifest import Needs

Version = tuple[int, ...]

# NVIDIA's list of compute capabilities (developer.nvidia.com/cuda-gpus). The first match counts.
_CAPABILITIES = (
    (r"B200|B100\b|GB200", (10, 0)),
    (r"B300|GB300", (10, 3)),
    (r"RTX 50\d\d|RTX PRO \d+.*Blackwell", (12, 0)),
    (r"\bG?H[12]00|\bH800|\bH20\b", (9, 0)),
    (r"RTX 40\d\d|RTX \d+ Ada|RTX \d+ SFF Ada|\bL4\b|\bL40S?\b|\bL20\b", (8, 9)),
    (r"\bA100|\bA800|\bA30\b", (8, 0)),
    (r"RTX 30\d\d|RTX A\d{4}|\bA10G?\b|\bA16\b|\bA40\b|\bA2\b", (8, 6)),
    (r"RTX 20\d\d|TITAN RTX|Quadro RTX|\bT4\b|GTX 16\d\d|\bT\d{3,4}\b", (7, 5)),
    (r"V100|TITAN V", (7, 0)),
    (r"GTX 10\d\d|\bP40\b|\bP4\b|TITAN X", (6, 1)),
    (r"\bP100", (6, 0)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a ComfyUI renders on. None: unknown."""

    name: str = ""
    memory: int | None = None  # bytes of the whole card
    compute_capability: tuple[int, int] | None = None  # NVIDIA's: (8, 9) is Ada
    torch_cuda: Version | None = None  # the CUDA that torch is built for: (13, 0)
    comfyui: Version | None = None  # ComfyUI's version
    is_cpu: bool = False  # ComfyUI renders without a card


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The variants that a card may render, preferred first, and why not the others."""

    variants: tuple[Workflow, ...]  # never empty, so that a workflow that fits no card can still say why
    why: str  # of the first: the end of a sentence
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # variant → what the card lacks


def ranking(workflow: Workflow, card: Card, *, pinned: Sequence[str] = (), fastest: str = "") -> Ranking:
    """The variants of `workflow` for `card`. `pinned`: only these, in this order, whatever the card is. `fastest`: was
    measured, so it comes first where the card can run it; one that is unknown changes nothing, as manifests change.

    Raises ConfigError for an unknown name in `pinned`.
    """
    variants = workflow.variants
    if pinned:
        own = {"needs": workflow.manifest.needs}  # the operator knows better than the variant's needs
        named = (variant_of(workflow, name) for name in pinned)
        chosen = tuple(replace(one, manifest=one.manifest.model_copy(update=own)) for one in named)
        return Ranking(variants=chosen, why="set in [workflows] variants")
    if len(variants) == 1:
        return Ranking(variants=variants, why="the only variant")
    refused = {one.variant: tuple(_lacking(one.manifest.needs, card)) for one in variants}
    fitting = [one for one in variants if not refused[one.variant]]
    doubted = {one.variant: tuple(_unknown(one.manifest.needs, card)) for one in fitting}
    sure = [one for one in fitting if not doubted[one.variant]]
    refused = {name: why for name, why in refused.items() if why}
    if not fitting:
        least = min(variants, key=lambda one: (len(refused[one.variant]), one.manifest.needs.vram_gb))
        return Ranking(variants=(least,), why="it needs least, and no variant fits this card", refused=refused)
    if not sure:
        fitting.sort(key=lambda one: (len(doubted[one.variant]), one.manifest.needs.vram_gb))
        why = f"{' and '.join(doubted[fitting[0].variant])} is unknown, and it needs least"
        return Ranking(variants=tuple(fitting), why=why, refused=refused)
    refused |= {name: tuple(f"{what} is unknown" for what in whats) for name, whats in doubted.items() if whats}
    if any(one.variant == fastest for one in sure):
        sure.sort(key=lambda one: one.variant != fastest)
        return Ranking(variants=tuple(sure), why="measured as the fastest on this card", refused=refused)
    return Ranking(variants=tuple(sure), why="the best that this card can run", refused=refused)


def variant_of(workflow: Workflow, name: str) -> Workflow:
    """The variant `name` of `workflow`. Raises ConfigError: names come from the configuration."""
    for one in workflow.variants:
        if one.variant == name:
            return one
    names = ", ".join(one.variant for one in workflow.variants if one.variant)
    known = f"available: {names}" if names else "it has no variants"
    raise ConfigError(f"workflows.variants.{workflow.name}: unknown variant '{name}'; {known}")


def check_pins(library: Library, pinned: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError if [workflows] variants names a workflow or a variant that is unknown."""
    for name, variants in pinned.items():
        workflow = library.get(name)
        for variant in variants:
            variant_of(workflow, variant)


def numbers_of(text: str) -> Version | None:
    """The numbers that a version begins with: (0, 33, 0) of `v0.33.0-2-gabc`. None without any."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(map(int, found[1].split("."))) if found else None


def cuda_of(torch: str) -> Version | None:
    """The CUDA in a version of torch: (13, 0) of `2.11.0+cu130`. None: built for something else, or not told."""
    found = re.search(r"\+cu(\d+)(\d)$", torch)
    return (int(found[1]), int(found[2])) if found else None


def capability_of(name: str) -> tuple[int, int] | None:
    """The compute capability of an NVIDIA card by its name, where nothing on this machine can ask the card."""
    return next((known for pattern, known in _CAPABILITIES if re.search(pattern, name)), None)


def _lacking(needs: Needs, card: Card) -> list[str]:
    """What the card is known to lack, each the end of a sentence."""
    lacking = []
    if not card.is_cpu and card.memory is not None and card.memory < needs.vram_gb * GIGABYTE:
        lacking.append(f"it has {gb(card.memory)} of memory, not {needs.vram_gb:g}")
    lacking += lacking_kernels(needs, card)
    comfyui = numbers_of(needs.comfyui)
    if comfyui and card.comfyui is not None and _older(card.comfyui, comfyui):
        lacking.append(f"its ComfyUI is {dotted(card.comfyui)}, not {needs.comfyui}")
    return lacking


def lacking_kernels(needs: Needs, card: Card) -> list[str]:
    """The same, of its compute capability and of its torch alone."""
    lacking = []
    capability, cuda = numbers_of(needs.compute_capability), numbers_of(needs.torch_cuda)
    if capability and card.is_cpu:
        lacking.append(f"it is a CPU, without compute capability {needs.compute_capability}")
    elif capability and card.compute_capability is not None and _older(card.compute_capability, capability):
        lacking.append(f"it has compute capability {dotted(card.compute_capability)}, not {needs.compute_capability}")
    if cuda and card.torch_cuda is not None and _older(card.torch_cuda, cuda):
        lacking.append(f"its torch is built for CUDA {dotted(card.torch_cuda)}, not {needs.torch_cuda}")
    return lacking


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _older(one: Version, wanted: Version) -> bool:
    """Whether `one` is below `wanted`; 0.33 is 0.33.0."""
    length = max(len(one), len(wanted))
    return one + (0,) * (length - len(one)) < wanted + (0,) * (length - len(wanted))


def _unknown(needs: Needs, card: Card) -> list[str]:
    """What of `needs` cannot be judged. A version of ComfyUI that is unknown is judged once it runs."""
    unknown = []
    if needs.vram_gb and card.memory is None:
        unknown.append("its video memory")
    if needs.compute_capability and card.compute_capability is None and not card.is_cpu:
        unknown.append("its compute capability")
    if needs.torch_cuda and card.torch_cuda is None:
        unknown.append("its torch's CUDA")
    return unknown
