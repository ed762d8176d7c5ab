"""A program that prints what torch or NVML knows of the GPUs, as one line of JSON.

`gpu` runs it in the Python that has torch or NVML, which can be ComfyUI's, so it imports nothing of the miner and needs
only Python 3.9. It has its own process because torch takes seconds, 300 MB and a CUDA context, and a broken driver can
hang or kill it. Never: raises for what is missing.

    python gpu_probe.py torch|nvml
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from typing import Any


def torch_facts() -> dict[str, Any]:
    """`{"missing": why}` without torch; else its version, its CUDA or HIP version, and the GPUs that it can use."""
    try:
        import torch
    except ImportError as error:
        return {"missing": str(error)}
    facts: dict[str, Any] = {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda or "",
        "hip": getattr(torch.version, "hip", None) or "",
        "arches": _arches(torch),
        "driver_cuda": _driver_cuda(),
        "torchaudio": _torchaudio_problem(),
        "gpus": [],
        "problem": "",
    }
    if not (facts["cuda"] or facts["hip"]):
        facts["problem"] = "this torch is built for the CPU only"
        return facts
    try:
        torch.cuda.init()
        facts["gpus"] = [_torch_gpu(torch, index) for index in range(torch.cuda.device_count())]
    except RuntimeError as error:  # no driver, an old driver, or no visible card
        facts["problem"] = str(error).splitlines()[0]
    return facts


def _arches(torch: Any) -> list[str]:
    """What its kernels are compiled for. `get_arch_list` is empty where CUDA does not start, when it counts."""
    try:
        return str(torch._C._cuda_getArchFlags() or "").split()
    except AttributeError:  # built for the CPU, or renamed
        return []


def _torchaudio_problem() -> str:
    """Why ComfyUI cannot import it: torchaudio raises RuntimeError where torch is built for another CUDA."""
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError:  # the check of ComfyUI's packages tells
        return ""
    except (ImportError, OSError, RuntimeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _driver_cuda() -> str:
    """The newest CUDA that the driver runs, also where torch cannot use it; empty without a driver."""
    version = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return ""
    return _version(version.value)


def _version(cuda: int) -> str:
    """CUDA's number, such as 13020, as "13.2"; empty for 0."""
    return f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else ""


def _torch_gpu(torch: Any, index: int) -> dict[str, Any]:
    card = torch.cuda.get_device_properties(index)
    try:
        free = torch.cuda.mem_get_info(index)[0]
    except RuntimeError:  # the card has no memory left for a context
        free = None
    return {
        "index": index,
        "uuid": str(getattr(card, "uuid", "")),
        "name": card.name,
        "memory": card.total_memory,
        "free": free,
        "capability": [card.major, card.minor],
    }


def nvml_facts() -> dict[str, Any]:
    """`{"missing": why}` without NVML; else the driver's version, and every GPU of this machine."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError as error:
        return {"missing": str(error)}
    except nvml.NVMLError as error:
        return {"missing": "NVML: " + str(error)}
    try:
        return {
            "driver": _text(_ask(nvml, nvml.nvmlSystemGetDriverVersion)),
            "cuda": _version(_ask(nvml, nvml.nvmlSystemGetCudaDriverVersion) or 0),
            "gpus": [_nvml_gpu(nvml, index) for index in range(_ask(nvml, nvml.nvmlDeviceGetCount) or 0)],
        }
    finally:
        nvml.nvmlShutdown()


def _nvml_gpu(nvml: Any, index: int) -> dict[str, Any]:
    try:
        card = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:  # a card that fell off the bus does not hide the others
        return {"index": index, "lost": str(error)}
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, card)
    return {
        "index": index,
        "uuid": _text(_ask(nvml, nvml.nvmlDeviceGetUUID, card)),
        "name": _text(_ask(nvml, nvml.nvmlDeviceGetName, card)),
        "memory": memory.total if memory else 0,
        "free": memory.free if memory else None,
        "capability": _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, card),
        "users": [
            {"pid": user.pid, "memory": user.usedGpuMemory}
            for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
            for user in _ask(nvml, ask, card) or []
        ],
    }


def _ask(nvml: Any, question: Any, *arguments: Any) -> Any:
    """The answer, or None where this card or driver does not support the call."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def main() -> None:
    facts = torch_facts() if sys.argv[-1] == "torch" else nvml_facts()
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
