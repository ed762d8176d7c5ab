"""The LoRAs of the settings: those of `[loras]`, under their names, and what tasks may name by reference."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from miner.config import Settings
from miner.models.catalogue import ModelFile
from miner.models.lora_download import Sites
from miner.models.on_demand import OnDemand
from miner.models.store import store_of
from miner.net.addresses import parse_allow
from miner.net.egress import Egress
from miner.net.references import parse_reference
from miner.net.session import Guard
from miner.task.errors import ConfigError
from miner.telemetry.sizes import GIGABYTE, MEGABYTE
from miner.workflows import Workflow
from miner.workflows.lora_names import Elsewhere
from miner.workflows.parameters import LoraParameter

log = structlog.get_logger()

FOLDER = "loras"


def named_files(settings: Settings) -> tuple[ModelFile, ...]:
    """The files of `[loras]`."""
    token = settings.loras.civitai_token
    files = []
    for name, text in settings.loras.files.items():
        reference = parse_reference(text)
        if reference is None:  # the settings refuse it
            continue
        files.append(
            ModelFile(
                folder=FOLDER,
                name=f"{name}.safetensors",
                url=f"civitai:{reference.place}" if reference.kind == "civitai" else reference.place,
                sha256=reference.sha256,
                needed_by=("[loras]",),
                token=token.get_secret_value() if token and reference.kind == "civitai" else "",
                endpoint=settings.loras.civitai_endpoint,
            )
        )
    return tuple(files)


def take_loras(workflows: Collection[Workflow]) -> bool:
    """Whether one of `workflows` takes a LoRA."""
    return any(
        isinstance(parameter, LoraParameter)
        for workflow in workflows
        for parameter in workflow.manifest.parameters.values()
    )


def elsewhere_of(settings: Settings, on_demand: OnDemand | None) -> Elsewhere:
    """What tasks may write in place of an installed LoRA's name."""
    named = {}
    for name, text in settings.loras.files.items():
        if (reference := parse_reference(text)) is not None:
            named[reference.key] = f"{name}.safetensors"
    return Elsewhere(named=named, fetched=on_demand is not None)


def on_demand_root(settings: Settings) -> Path | None:
    """The models folder for the LoRAs of tasks. Raises ConfigError where they are on and it is unknown."""
    if not settings.loras.on_demand:
        return None
    try:
        return store_of(settings).root
    except ConfigError as error:
        says = f"loras.on_demand needs a models folder that ComfyUI shares: {error.message}"
        raise ConfigError(says, hint=error.hint) from None


def on_demand_of(
    settings: Settings, *, needed: Callable[[], Collection[str]], changed: Callable[[], None], egress: Egress
) -> OnDemand | None:
    """Fetches what tasks name, if the settings say so; see `OnDemand`. Raises ConfigError."""
    root, loras = on_demand_root(settings), settings.loras
    if root is None:
        return None
    return OnDemand(
        root,
        sites=Sites(
            hosts=loras.hosts,
            hub=loras.hf_endpoint,
            civitai=loras.civitai_endpoint,
            hub_token=loras.hf_token.get_secret_value() if loras.hf_token else "",
            civitai_token=loras.civitai_token.get_secret_value() if loras.civitai_token else "",
        ),
        guard=Guard(allow=parse_allow(settings.network.allow), schemes=("https",)),
        quota=int(loras.quota_gb * GIGABYTE),
        most=loras.max_mb * MEGABYTE,
        min_free=int(settings.miner.min_free_disk_gb * GIGABYTE),
        needed=needed,
        changed=changed,
        egress=egress,
    )
