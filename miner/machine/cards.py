"""What is known of this machine's cards, as variants of workflows are chosen for them."""

from __future__ import annotations

from contextlib import closing

from miner.comfy.client import ComfyClient, ComfyFault
from miner.comfy.preflight import machine_of
from miner.config import Settings
from miner.machine.gpu import Gpus, Nvml, probe_for
from miner.machine.software import version_of
from miner.workflows.variants import Card, capability_of, cuda_of, numbers_of


def cards_here(settings: Settings) -> tuple[tuple[Card, ...], str]:
    """The cards that the ComfyUIs of the settings render on, and a sentence on what is wrong. Blocks for seconds.

    Running ComfyUIs are asked themselves; of those that the miner starts, torch and NVML are.
    """
    if asked := tuple(filter(None, map(_card_at, settings.comfyui.urls))):
        return asked, ""
    if "--cpu" in settings.comfyui.args:
        return (Card(is_cpu=True),), ""
    home = settings.comfyui.home
    found = probe_for(settings)
    return cards_of(found, comfyui=version_of(home) if home else ""), found.problem


def _card_at(url: str) -> Card | None:
    with closing(ComfyClient(url, client_id="")) as client:
        try:
            return machine_of({}, client.stats(), capabilities=compute_capabilities()).card
        except ComfyFault:
            return None


def cards_of(found: Gpus, *, comfyui: str = "") -> tuple[Card, ...]:
    """The cards as variants are chosen for them; `comfyui` is its version, if known. Pure."""
    amd = "+rocm" in found.torch  # torch numbers AMD's cards otherwise
    return tuple(
        Card(
            name=gpu.name,
            memory=gpu.memory_bytes or None,
            compute_capability=None if amd else gpu.compute_capability or capability_of(gpu.name),
            torch_cuda=cuda_of(found.torch),
            comfyui=numbers_of(comfyui),
        )
        for gpu in found.gpus
    )


def compute_capabilities() -> dict[str, tuple[int, int]]:
    """Of this machine's cards, by name. Takes some 30 ms with NVML; empty without."""
    nvml = Nvml()
    try:
        return nvml.capabilities()
    finally:
        nvml.close()
