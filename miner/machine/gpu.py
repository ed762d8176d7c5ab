"""The GPUs: which are available, their capabilities and their load.

Promises: asks torch where it is installed (ComfyUI's Python, else ours), NVML too, and ComfyUI's `/system_stats` where
neither knows. No GPU is a result with a reason, not an error. Whatever could load a driver runs in its own process with
a time limit, except `Nvml`: the dashboard samples it, and a worker that starts a ComfyUI for each GPU lists them by it.

Never: imports torch here, or hands the miner's secrets to the Python of ComfyUI.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from miner.comfy.client import ComfyClient, ComfyFault
from miner.comfy.launch import child_environment, python_of
from miner.comfy.replies import Stats
from miner.config import Settings
from miner.machine import gpu_probe
from miner.telemetry.sizes import MEGABYTE

Asked = Literal["torch", "nvml"]
Facts = Mapping[str, Any]
"""What `gpu_probe` printed: `{"missing": why}`, or versions and `gpus`."""

_TIMEOUT = 120.0  # seconds; a cold import of torch from a slow disk takes half of it
_WATT = 1000  # NVML's milliwatts
_DESKTOP = 64 * MEGABYTE  # video memory of graphics processes; an X server that shows nothing takes 4


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A process that uses memory of a GPU."""

    pid: int
    memory_bytes: int | None  # None where the driver does not tell, as in a container


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card."""

    index: int  # in nvidia-smi's order; without NVML torch's own
    uuid: str = ""  # "GPU-…"
    name: str
    memory_bytes: int
    free_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None  # (8, 9): Ada
    users: tuple[User, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What the probe found. Without `gpus`, `problem` says why."""

    gpus: tuple[Gpu, ...] = ()
    source: Literal["torch", "nvml", "comfyui", "none"] = "none"
    driver: str = ""  # version of NVIDIA's driver
    cuda: str = ""  # the newest that the driver runs: "13.0"
    torch: str = ""  # its version, where it is installed
    torch_cuda: str = ""  # what it is built for: "13.0"; empty for AMD and the CPU
    torch_arches: tuple[str, ...] = ()  # what its kernels are compiled for: "sm_75", "compute_120"
    torchaudio: str = ""  # why ComfyUI cannot import it
    problem: str = ""  # a sentence for the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHealth:
    """The load of one card. None: the card does not report it."""

    index: int
    uuid: str
    name: str
    load: float | None  # 0 to 1, over up to a second
    memory_used: int | None  # bytes
    memory_total: int | None  # bytes
    temperature: int | None  # °C
    power: float | None  # W


# ---- the probe --------------------------------------------------------------------------------------------------


def probe_for(settings: Settings) -> Gpus:
    """The GPUs that the ComfyUI of the settings can use. Blocks for seconds; raises nothing."""
    comfyui = settings.comfyui
    python = comfyui.python or (python_of(comfyui.home) if comfyui.home else None)
    return chosen(probe(python=python, comfyui_url=comfyui.url), comfyui.gpus)


def probe(*, python: Path | None = None, comfyui_url: str = "", timeout: float = _TIMEOUT) -> Gpus:
    """The available GPUs. `python`: ComfyUI's, if known; `comfyui_url` is queried if nothing else finds a GPU.

    Blocks for seconds, and for two or three times `timeout` (seconds) at most. Raises nothing.
    """
    found = merged(torch=_ask_torch(python, timeout), nvml=_ask(sys.executable, "nvml", timeout))
    if found.gpus or not comfyui_url:
        return found
    client = ComfyClient(comfyui_url, client_id="")
    try:
        return with_stats(found, client.stats())
    except ComfyFault as error:
        return replace(found, problem=f"{found.problem}; {error.message}")
    finally:
        client.close()


def chosen(found: Gpus, names: Sequence[str]) -> Gpus:
    """The cards in `comfyui.gpus` (indexes or UUIDs); all of them if it is empty. Pure."""
    if not names or not found.gpus:
        return found
    kept = tuple(gpu for gpu in found.gpus if str(gpu.index) in names or (gpu.uuid and gpu.uuid in names))
    there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in found.gpus)
    problem = found.problem if kept else f"comfyui.gpus names {', '.join(names)}; available: {there}"
    return replace(found, gpus=kept, problem=problem)


def merged(*, torch: Facts, nvml: Facts) -> Gpus:
    """What torch and NVML found together. ComfyUI can use torch's cards, so these count. Pure."""
    cards = [_gpu(card) for card in nvml.get("gpus", ()) if "lost" not in card]
    lost = [f"GPU {card['index']} is lost: {card['lost']}" for card in nvml.get("gpus", ()) if "lost" in card]
    common = Gpus(
        driver=nvml.get("driver", ""),
        cuda=nvml.get("cuda", "") or torch.get("driver_cuda", ""),
        torch=torch.get("torch", ""),
        torch_cuda=torch.get("cuda", ""),
        torch_arches=tuple(torch.get("arches", ())),
        torchaudio=torch.get("torchaudio", ""),
        problem="; ".join(lost),
    )
    usable = [_named_by_nvml(_gpu(card), cards) for card in torch.get("gpus", ())]
    if usable:
        return replace(common, gpus=tuple(usable), source="torch")
    if cards:
        flaw = f"torch {common.torch} cannot use them: {torch['problem']}" if torch.get("problem") else ""
        return replace(common, gpus=tuple(cards), source="nvml", problem="; ".join(filter(None, (*lost, flaw))))
    said = (torch.get("missing") or torch.get("problem"), nvml.get("missing"))
    return replace(common, problem="no GPU was found: " + "; ".join(filter(None, (*said, *lost))))


def with_stats(found: Gpus, stats: Stats) -> Gpus:
    """What ComfyUI itself says of its card, where nothing else knows. Pure."""
    if not stats.on_gpu:
        return replace(found, problem="ComfyUI runs on the CPU")
    number = stats.device.partition(" ")[0].partition(":")[2]
    gpu = Gpu(
        index=int(number) if number.isdecimal() else 0,
        name=stats.card,
        memory_bytes=stats.vram_total,
        free_bytes=stats.vram_free,
    )
    return replace(found, gpus=(gpu,), source="comfyui", torch=stats.torch or found.torch, problem="")


def _ask_torch(python: Path | None, timeout: float) -> Facts:
    """ComfyUI's torch, since that one renders; else ours."""
    pythons = [str(python), sys.executable] if python and str(python) != sys.executable else [sys.executable]
    missing: list[str] = []
    for one in pythons:
        facts = _ask(one, "torch", timeout)
        if "missing" not in facts:
            return facts
        missing.append(facts["missing"])
    return {"missing": "; ".join(dict.fromkeys(missing))}


def _ask(python: str, what: Asked, timeout: float) -> Facts:
    source = Path(gpu_probe.__file__).read_text(encoding="utf-8")
    env = child_environment(os.environ, None) | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # nvidia-smi's order
    # by -c, since a file's folder would put the miner's modules before torch's on the path
    command = [python, "-c", source, what]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, cwd="/", check=False)
    except OSError as error:
        return {"missing": f"cannot run {python}: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"missing": f"{what} did not answer within {timeout:.0f} s"}
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        return {"missing": f"{what} in {python} failed: {last[0]}"}
    return parse(ended.stdout)


def parse(printed: str) -> Facts:
    """The facts that `gpu_probe` printed: its last line, since a library may print something before. Pure."""
    try:
        facts = json.loads(printed.strip().splitlines()[-1])
    except (ValueError, IndexError):
        facts = None
    return facts if isinstance(facts, dict) else {"missing": f"the probe printed {printed[:80]!r}"}


def _gpu(card: Facts) -> Gpu:
    capability = card.get("capability")
    return Gpu(
        index=card["index"],
        uuid=_uuid(card.get("uuid", "")),
        name=card["name"],
        memory_bytes=card["memory"],
        free_bytes=card.get("free"),
        compute_capability=(capability[0], capability[1]) if capability else None,
        users=tuple(User(pid=user["pid"], memory_bytes=user["memory"]) for user in card.get("users", ())),
    )


def _uuid(text: str) -> str:
    """Torch leaves out the prefix of NVML's UUIDs."""
    return text if not text or text.startswith(("GPU-", "MIG-")) else f"GPU-{text}"


def _named_by_nvml(gpu: Gpu, cards: Iterable[Gpu]) -> Gpu:
    """Torch counts the visible cards (CUDA_VISIBLE_DEVICES), NVML all of them; the UUID matches them."""
    card = next((card for card in cards if card.uuid and card.uuid == gpu.uuid), None)
    return replace(gpu, index=card.index, users=card.users) if card else gpu


# ---- health -----------------------------------------------------------------------------------------------------


class Nvml:
    """NVML, open for sampling. Opening it takes about 30 ms, a sample 1 ms a card.

    For one thread. Without NVML it opens too, in less than a millisecond, and returns nothing.
    """

    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        import pynvml  # type: ignore[import-untyped]  # half a megabyte that a machine without NVML does not need

        try:
            pynvml.nvmlInit()
            self._nvml = pynvml
        except pynvml.NVMLError:
            return

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def uuids(self) -> tuple[str, ...]:
        """Of every card that answers, in nvidia-smi's order; empty without NVML."""
        cards = (self._query("nvmlDeviceGetHandleByIndex", n) for n in range(self._count()))
        uuids = (self._query("nvmlDeviceGetUUID", card) for card in cards if card is not None)
        return tuple(uuid for uuid in uuids if uuid)

    def driver(self) -> str:
        """The version of NVIDIA's driver; "" without NVML."""
        return str((self._nvml and self._query("nvmlSystemGetDriverVersion")) or "")

    def desktops(self) -> frozenset[str]:
        """The numbers and UUIDs of the cards that draw a desktop: a screen is on, or windows use their memory."""
        cards = ((number, self._query("nvmlDeviceGetHandleByIndex", number)) for number in range(self._count()))
        drawing = [(number, card) for number, card in cards if card is not None and self._draws(card)]
        names = [name for number, card in drawing for name in (str(number), self._query("nvmlDeviceGetUUID", card))]
        return frozenset(filter(None, names))

    def _draws(self, card: Any) -> bool:
        windows = self._query("nvmlDeviceGetGraphicsRunningProcesses", card) or ()
        taken = sum(_DESKTOP if one.usedGpuMemory is None else one.usedGpuMemory for one in windows)
        return bool(self._query("nvmlDeviceGetDisplayActive", card)) or taken >= _DESKTOP

    def capabilities(self) -> dict[str, tuple[int, int]]:
        """The compute capability of every card, by its name; empty without NVML."""
        cards = [self._query("nvmlDeviceGetHandleByIndex", n) for n in range(self._count())]
        facts = [(self._query("nvmlDeviceGetName", card), card) for card in cards if card is not None]
        known = {name: self._query("nvmlDeviceGetCudaComputeCapability", card) for name, card in facts if name}
        return {name: (found[0], found[1]) for name, found in known.items() if found}

    def health(self) -> tuple[GpuHealth, ...] | None:
        """The load of every card; None without NVML."""
        if self._nvml is None:
            return None
        return tuple(self._health(index) for index in range(self._count()))

    def _count(self) -> int:
        return self._query("nvmlDeviceGetCount") or 0 if self._nvml is not None else 0

    def _health(self, index: int) -> GpuHealth:
        card = self._query("nvmlDeviceGetHandleByIndex", index)
        load = card and self._query("nvmlDeviceGetUtilizationRates", card)
        memory = card and self._query("nvmlDeviceGetMemoryInfo", card)
        power = card and self._query("nvmlDeviceGetPowerUsage", card)
        return GpuHealth(
            index=index,
            uuid=(card and self._query("nvmlDeviceGetUUID", card)) or "",
            name=(card and self._query("nvmlDeviceGetName", card)) or "",
            load=load.gpu / 100 if load else None,
            memory_used=memory.used if memory else None,
            memory_total=memory.total if memory else None,
            temperature=card and self._query("nvmlDeviceGetTemperature", card, 0),  # 0: the GPU's own sensor
            power=power / _WATT if power is not None else None,
        )

    def _query(self, question: str, *arguments: Any) -> Any:
        """The answer, or None where this card or driver does not support the call."""
        nvml: Any = self._nvml
        try:
            return getattr(nvml, question)(*arguments)
        except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
            return None
