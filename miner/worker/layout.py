"""The layout: one placement per lane, with its ComfyUI and its miner id.

Managed: one per GPU, by `comfyui.gpus` or NVML. External: one per URL. Neither: the embedded engine. Reads the
settings, NVML's list of GPUs and the memory limit; starts nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from miner.comfy import memory_limit
from miner.comfy.launch import Launch, embedded_launch, managed_launch, python_of
from miner.config import Settings
from miner.machine.gpu import Nvml
from miner.machine.tuning import Tuned, tuned_for
from miner.task.errors import ConfigError
from miner.telemetry.sizes import gb

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One lane's placement."""

    name: str  # the lane's: `0`, `1`, …
    miner_id: str
    url: str
    launch: Launch | None = None  # how to start its ComfyUI; None: external
    output_dir: Path | None = None  # ComfyUI's folders, if on this machine
    input_dir: Path | None = None
    fastest: Mapping[str, str] = field(default_factory=dict)  # workflow → the variant that was fastest here


def layout(settings: Settings, *, environ: Mapping[str, str] = os.environ) -> tuple[Placement, ...]:
    """At least one placement. `environ`: for managed ComfyUIs. Takes some 30 ms with NVML.

    Raises ConfigError if the settings contradict each other.
    """
    comfyui = settings.comfyui
    if comfyui.url:
        ids = _ids(settings, [str(number) for number in range(len(comfyui.urls))])
        return tuple(
            Placement(
                name=str(number),
                miner_id=ids[number],
                url=url,
                output_dir=comfyui.output_dir,
                input_dir=comfyui.input_dir,
            )
            for number, url in enumerate(comfyui.urls)
        )
    launches = [_embedded(settings)] if comfyui.home is None else _managed(settings, comfyui.home, environ)
    ids = _ids(settings, _suffixes([gpu for gpu, *_ in launches]))
    return tuple(
        Placement(
            name=str(number),
            miner_id=ids[number],
            url=launch.url,
            launch=launch,
            output_dir=launch.output_dir,
            input_dir=launch.input_dir,
            fastest=tuned.variants,
        )
        for number, (_, launch, tuned) in enumerate(launches)
    )


def _embedded(settings: Settings) -> tuple[str, Launch, Tuned]:
    log.warning(
        "embedded_engine",
        reason="neither comfyui.url nor comfyui.home is set",
        next="using the embedded engine on the CPU: it runs image nodes, and models only with torch",
    )
    comfyui = settings.comfyui
    launch = embedded_launch(
        port=comfyui.port, state=settings.state.dir, models_dir=settings.models.dir, extra_args=comfyui.args
    )
    return "", launch, Tuned()


def _managed(settings: Settings, home: Path, environ: Mapping[str, str]) -> list[tuple[str, Launch, Tuned]]:
    """(GPU, launch, what was tuned) for each GPU; a single one with "" if ComfyUI chooses."""
    comfyui, gpus = settings.comfyui, gpus_of(settings, environ)
    limit = memory_limit.limit()
    if limit is not None:
        log.info(
            "memory_limited",
            limit=gb(limit.total),
            machine=gb(memory_limit.machine_memory()),
            file=limit.file,
            next="starting ComfyUI so that its caches stay within the limit, not the machine's memory",
        )
    desktops = _desktops()
    return [
        (
            gpu or "",
            managed_launch(
                home=home,
                python=comfyui.python or python_of(home) or Path("python3"),
                port=comfyui.port + number,
                gpu=gpu,
                state=settings.state.dir,
                models_dir=settings.models.dir,
                extra_args=(*tuned.args, *comfyui.args),
                desktop=draws_a_desktop(gpu or first_visible(environ), desktops),
                limited=limit is not None,
                environ=environ,
            ),
            tuned,
        )
        for number, (gpu, tuned) in enumerate((gpu, _tuned(settings, gpu)) for gpu in gpus)
    ]


def gpus_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[str | None, ...]:
    """The GPU of each managed ComfyUI; None leaves the choice to it."""
    return settings.comfyui.gpus or _all_gpus(environ) or (None,)


def _tuned(settings: Settings, gpu: str | None) -> Tuned:
    """What `bench --tune` chose for this card, if it still counts."""
    tuned = tuned_for(settings, gpu)
    if tuned.stale:
        log.warning("comfyui_tuning_stale", reason=tuned.stale, next="run `xalora-miner bench --tune` again")
    elif tuned.args or tuned.variants:
        log.info("comfyui_tuned", args=list(tuned.args), variants=dict(tuned.variants) or None, reason=tuned.says())
    return tuned


def _all_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The UUIDs of this machine's GPUs, if several; none if CUDA_VISIBLE_DEVICES is set: ComfyUI takes its first."""
    if "CUDA_VISIBLE_DEVICES" in environ:
        return ()
    nvml = Nvml()
    uuids = nvml.uuids()
    nvml.close()
    return uuids if len(uuids) > 1 else ()


def _desktops() -> frozenset[str]:
    nvml = Nvml()
    try:
        return nvml.desktops()
    finally:
        nvml.close()


def first_visible(environ: Mapping[str, str]) -> str | None:
    """The GPU that ComfyUI takes by CUDA_VISIBLE_DEVICES; None if it is not set, or counts in CUDA's own order."""
    first = environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    known = first and (not first.isdecimal() or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")
    return first if known else None


def draws_a_desktop(gpu: str | None, desktops: Collection[str]) -> bool:
    """Whether a GPU, by number or UUID, perhaps shortened, is one of `desktops`. None: it may be any. Pure."""
    if gpu is None:
        return bool(desktops)
    return any(gpu == name or (gpu.startswith("GPU-") and name.startswith(gpu)) for name in desktops)


def _ids(settings: Settings, names: list[str]) -> list[str]:
    """Each lane's miner id: unchanged for one lane, `<address>-<suffix>` for several."""
    miner_id, suffixes = settings.miner.id, settings.miner.suffixes
    if len(names) == 1 and not suffixes:
        return [miner_id]
    if suffixes and len(suffixes) != len(names):
        raise ConfigError(
            f"[miner] suffixes has {len(suffixes)} names for {len(names)} lanes",
            hint="set one per lane, or none",
        )
    joint = "_" if "-" in miner_id else "-"
    return [f"{miner_id}{joint}{suffix}" for suffix in suffixes or names]


def _suffixes(gpus: Sequence[str]) -> list[str]:
    """Each UUID's first six characters (`GPU-6f1c0a2b-…` → `6f1c0a`), or more if needed to differ; numbers in full."""
    texts = [re.sub(r"^(MIG-)?(GPU-)?|[^0-9A-Za-z]", "", gpu) for gpu in gpus]
    length = next((n for n in range(6, 64) if len({text[:n] for text in texts}) == len(texts)), None)
    return [text[:length] for text in texts]
