"""What GPUs there are, what they can, and how they do.

Promises: torch is asked where it is installed (ComfyUI's Python, else ours), NVML beside it, ComfyUI's own
`/system_stats` where neither knows; that there is no GPU is a fact with its reason, and no error. Everything that could
load a driver is in a process of its own with a limit on its time, `Nvml` excepted: the dashboard samples it, and a
worker that starts a ComfyUI a GPU asks it which there are.

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

from miner.comfy.client import ComfyClient, ComfyDown
from miner.comfy.launch import child_environment, python_of
from miner.comfy.replies import Stats
from miner.config import Settings
from miner.machine import gpu_probe

Asked = Literal["torch", "nvml"]
Facts = Mapping[str, Any]
"""What `gpu_probe` printed: `{"missing": why}`, or versions and `gpus`."""

_TIMEOUT = 120.0  # seconds; a cold import of torch from a slow disk takes half of them
_WATT = 1000  # NVML's milliwatts


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A process that has memory of a GPU."""

    pid: int
    memory_bytes: int | None  # None: the driver does not tell, as in a container


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card."""

    index: int  # in nvidia-smi's order; torch's own where NVML is not there
    uuid: str = ""  # "GPU-…"
    name: str
    memory_bytes: int
    free_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None  # (8, 9): Ada
    users: tuple[User, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What the probe found. No `gpus`: `problem` says why."""

    gpus: tuple[Gpu, ...] = ()
    source: Literal["torch", "nvml", "comfyui", "none"] = "none"
    driver: str = ""  # NVIDIA's version of it
    cuda: str = ""  # the newest that the driver takes, or, without NVML, what torch is built for
    torch: str = ""  # its version, where it was asked
    problem: str = ""  # a sentence for the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHealth:
    """How one card does now. None: the card does not tell."""

    index: int
    uuid: str
    name: str
    load: float | None  # 0 to 1, over the last second or less
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
    """What GPUs there are. `python` is ComfyUI's, if it is known; `comfyui_url` is asked if nothing else knows.

    Blocks for seconds, and for two or three `timeout` (seconds) at most. Raises nothing.
    """
    found = merged(torch=_ask_torch(python, timeout), nvml=_ask(sys.executable, "nvml", timeout))
    if found.gpus or not comfyui_url:
        return found
    client = ComfyClient(comfyui_url, client_id="")
    try:
        return with_stats(found, client.stats())
    except ComfyDown as error:
        return replace(found, problem=f"{found.problem}; {error.message}")
    finally:
        client.close()


def chosen(found: Gpus, names: Sequence[str]) -> Gpus:
    """Those of `comfyui.gpus` (indexes or UUIDs); all of them if it names none. Pure."""
    if not names or not found.gpus:
        return found
    kept = tuple(gpu for gpu in found.gpus if str(gpu.index) in names or (gpu.uuid and gpu.uuid in names))
    there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in found.gpus)
    problem = found.problem if kept else f"comfyui.gpus names {', '.join(names)}, and there are {there}"
    return replace(found, gpus=kept, problem=problem)


def merged(*, torch: Facts, nvml: Facts) -> Gpus:
    """One picture of what torch and NVML say. Torch's cards are those that ComfyUI can use, so they count. Pure."""
    cards = [_gpu(card) for card in nvml.get("gpus", ()) if "lost" not in card]
    lost = [f"GPU {card['index']} is lost: {card['lost']}" for card in nvml.get("gpus", ()) if "lost" in card]
    common = Gpus(
        driver=nvml.get("driver", ""),
        cuda=nvml.get("cuda", "") or torch.get("cuda", "") or torch.get("hip", ""),
        torch=torch.get("torch", ""),
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
    """What ComfyUI itself says of the one card that it uses, for a machine that nothing else is known of. Pure."""
    if not stats.on_gpu:
        return replace(found, problem="ComfyUI runs on the CPU")
    name = stats.device.split(" : ")[0]  # "cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync"
    device, _, card = name.partition(" ")
    number = device.partition(":")[2]
    gpu = Gpu(
        index=int(number) if number.isdecimal() else 0,
        name=card or name,
        memory_bytes=stats.vram_total,
        free_bytes=stats.vram_free,
    )
    return replace(found, gpus=(gpu,), source="comfyui", problem="")


def _ask_torch(python: Path | None, timeout: float) -> Facts:
    """ComfyUI's torch, for it is the one that counts; ours where there is none."""
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
    # by -c, or the miner's own modules would stand before torch's on the path
    command = [python, "-c", source, what]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, cwd="/", check=False)
    except OSError as error:
        return {"missing": f"{python} cannot be run: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"missing": f"{what} did not answer within {timeout:.0f} s"}
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        return {"missing": f"{what} in {python} ended with: {last[0]}"}
    return parse(ended.stdout)


def parse(printed: str) -> Facts:
    """The facts in what `gpu_probe` printed: its last line, for a library may have said something before. Pure."""
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
    """Torch leaves out what NVML begins a UUID with."""
    return text if not text or text.startswith(("GPU-", "MIG-")) else f"GPU-{text}"


def _named_by_nvml(gpu: Gpu, cards: Iterable[Gpu]) -> Gpu:
    """Torch counts the cards that it may see (CUDA_VISIBLE_DEVICES), NVML all of them; a UUID joins the two."""
    card = next((card for card in cards if card.uuid and card.uuid == gpu.uuid), None)
    return replace(gpu, index=card.index, users=card.users) if card else gpu


# ---- health -----------------------------------------------------------------------------------------------------


class Nvml:
    """NVML, held open for sampling. Opening it takes some 30 ms, a sample about one a card.

    For one thread. On a machine without NVML it opens, too, in less than a millisecond, and has nothing to say.
    """

    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        import pynvml  # type: ignore[import-untyped]  # half a megabyte that a machine without NVML needs not

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
        """Of every card of this machine that answers, in nvidia-smi's order; none without NVML."""
        if self._nvml is None:
            return ()
        cards = (self._told("nvmlDeviceGetHandleByIndex", n) for n in range(self._told("nvmlDeviceGetCount") or 0))
        uuids = (self._told("nvmlDeviceGetUUID", card) for card in cards if card is not None)
        return tuple(uuid for uuid in uuids if uuid)

    def health(self) -> tuple[GpuHealth, ...] | None:
        """How every card of this machine does now; None without NVML."""
        if self._nvml is None:
            return None
        count = self._told("nvmlDeviceGetCount") or 0
        return tuple(self._health(index) for index in range(count))

    def _health(self, index: int) -> GpuHealth:
        card = self._told("nvmlDeviceGetHandleByIndex", index)
        load = card and self._told("nvmlDeviceGetUtilizationRates", card)
        memory = card and self._told("nvmlDeviceGetMemoryInfo", card)
        power = card and self._told("nvmlDeviceGetPowerUsage", card)
        return GpuHealth(
            index=index,
            uuid=(card and self._told("nvmlDeviceGetUUID", card)) or "",
            name=(card and self._told("nvmlDeviceGetName", card)) or "",
            load=load.gpu / 100 if load else None,
            memory_used=memory.used if memory else None,
            memory_total=memory.total if memory else None,
            temperature=card and self._told("nvmlDeviceGetTemperature", card, 0),  # 0: the GPU's own sensor
            power=power / _WATT if power is not None else None,
        )

    def _told(self, question: str, *arguments: Any) -> Any:
        """The answer, or None where this card or driver has none."""
        nvml: Any = self._nvml
        try:
            return getattr(nvml, question)(*arguments)
        except nvml.NVMLError:
            return None
