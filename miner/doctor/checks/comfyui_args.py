"""The operator's own arguments of a managed ComfyUI: what slows it down, opens it to others, or keeps it from starting.

ComfyUI's own parser reads them (`comfy/cli_args.py`), so abbreviations, `--flag=value` and flags that this version does
not know count as they would at a start. The table is by that file and its uses in 0.3.64 and 0.33.0.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from miner.comfy import memory_limit
from miner.comfy.launch import Launch, child_environment
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.telemetry.health import Mark

NAME = "ComfyUI's arguments"
TIMEOUT = 60.0  # seconds; it takes 0.1, and a Python on a slow disk takes ten
MISUSED = 2  # argparse's exit code

_PARSER = """
import enum, json
import comfy.options
comfy.options.enable_args_parsing()
from comfy import cli_args
def plain(value):
    if isinstance(value, set):
        return sorted(map(plain, value))
    return value.value if isinstance(value, enum.Enum) else value
default = vars(cli_args.parser.parse_args([]))
print(json.dumps({k: plain(v) for k, v in vars(cli_args.args).items() if v != default.get(k)}, default=str))
"""

_OFF = "turns ComfyUI's dynamic memory off"
_EXACT = "makes every render slower, for a precision that no workflow here needs"
_ATTENTION = "is slower than the attention that ComfyUI chooses for the GPU"
_OURS = "has no effect: the miner sets it"
_ENDS = "makes ComfyUI end instead of serving"

SLOWS: Mapping[str, str] = {
    "--highvram": f"{_OFF}: models stay in video memory until another one does not fit",
    "--gpu-only": f"{_OFF}: models, text encoders and results stay in video memory until another one does not fit",
    "--novram": f"{_OFF}: weights are sent to the GPU anew at every step",
    "--disable-dynamic-vram": _OFF,
    "--lowvram": "keeps weights out of video memory (0.3.64); newer versions ignore it",
    "--disable-smart-memory": "unloads every model after each task",
    "--cpu": "renders on the CPU",
    "--cpu-vae": "decodes every picture on the CPU",
    "--cache-none": "drops every model after each task",
    "--disable-pinned-memory": "sends weights to the GPU at a fraction of the speed",
    "--disable-async-offload": "has the GPU wait for weights",
    "--disable-cuda-malloc": "has torch manage video memory the slower way",
    "--disable-cuda-graphs": "starts each of the GPU's kernels by itself",
    "--disable-nvml-pressure": "hides from ComfyUI how much video memory other programs use",
    "--disable-mmap": "reads whole files of weights into RAM",
    "--force-fp32": _EXACT,
    "--fp32-unet": _EXACT,
    "--fp64-unet": _EXACT,
    "--fp32-vae": _EXACT,
    "--fp32-text-enc": _EXACT,
    "--force-upcast-attention": _EXACT,
    "--deterministic": "has torch choose its slower algorithms",
    "--use-split-cross-attention": _ATTENTION,
    "--use-quad-cross-attention": _ATTENTION,
    "--enable-assets": "scans the models in the background",
    "--enable-asset-hashing": "hashes the models in the background",
    "--cuda-device": "puts the ComfyUI of every lane on the same GPU; [comfyui] gpus selects GPUs",
    "--default-device": "puts the ComfyUI of every lane on the same GPU; [comfyui] gpus selects GPUs",
}
SPOILS: Mapping[str, str] = {
    "--fp16-vae": "can make pictures black",
    "--dont-upcast-attention": "can make pictures black",
    "--fp16-intermediates": "is experimental, and changes pictures",
    "--supports-fp8-compute": "makes renders fail on a GPU that cannot compute in fp8",
}
OPENS: Mapping[str, str] = {
    "--enable-cors-header": "lets any web page that is opened on this machine use ComfyUI",
    "--enable-manager": "lets ComfyUI install and run code from the network",
    "--enable-manager-legacy-ui": "lets ComfyUI install and run code from the network",
    "--front-end-version": "downloads code at each start",
}
PREVENTS: Mapping[str, str] = {
    "--tls-keyfile": "has ComfyUI speak TLS, and the miner does not",
    "--tls-certfile": "has ComfyUI speak TLS, and the miner does not",
    "--quick-test-for-ci": _ENDS,
    "--list-feature-flags": _ENDS,
}
IGNORED: Mapping[str, str] = dict.fromkeys(
    (
        *("--listen", "--port", "--output-directory", "--input-directory", "--temp-directory", "--user-directory"),
        *("--database-url", "--auto-launch"),
    ),
    _OURS,
)
UNBOUNDED: Mapping[str, str] = dict.fromkeys(
    ("--cache-classic", "--cache-lru", "--high-ram"),
    "keeps results in RAM however little is left, so that the memory limit ends ComfyUI",
)
RESERVED = 4.0  # GB of video memory; a desktop and a browser use one
UPLOAD = 100.0  # MB, ComfyUI's default

_LEVELS: tuple[tuple[Mapping[str, str], Callable[[str, str, str], Mark]], ...] = (
    (PREVENTS, bad),
    (OPENS, warning),
    (SPOILS, warning),
    (SLOWS, warning),
    (IGNORED, note),
)


def comfyui_args(facts: Facts) -> Iterator[Mark]:
    """Runs ComfyUI's parser in its own Python, for a moment. ComfyUI is not started."""
    args, placements = facts.settings.comfyui.args, facts.layout().placements
    launch = placements[0].launch if placements else None
    if not facts.managed or launch is None or not args:
        return
    found = parsed(launch, args)
    if isinstance(found, str):
        yield bad(NAME, f"ComfyUI does not accept them: {found}", "correct [comfyui] args; main.py --help lists them")
    elif found is not None:
        yield from judged(found, limited=memory_limit.limit() is not None)


def parsed(launch: Launch, args: Sequence[str]) -> Mapping[str, Any] | str | None:
    """What ComfyUI's parser makes of `args`, without defaults; its complaint; or None if it cannot be asked."""
    command = [launch.argv[0], "-c", _PARSER, *args]
    env = child_environment(os.environ, None)
    try:
        ran = subprocess.run(
            command, cwd=launch.cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        if ran.returncode == MISUSED:
            return ran.stderr.strip().rpartition("error: ")[2]
        if ran.returncode:
            return None  # the check of ComfyUI's Python says why
        found = json.loads(ran.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired):
        return None
    except (ValueError, IndexError):
        return "they have it print something, such as its help, and end"
    return found if isinstance(found, dict) else None


def judged(found: Mapping[str, Any], *, limited: bool) -> Iterator[Mark]:
    """Pure. `found`: ComfyUI's names of arguments (`gpu_only`) and their values. `limited`: the memory is."""
    marks = list(_marks(found, limited=limited))
    yield from marks or [good(NAME, "none of [comfyui] args slows ComfyUI down or opens it to others")]


def _marks(found: Mapping[str, Any], *, limited: bool) -> Iterator[Mark]:
    for table, mark in (*_LEVELS, *(((UNBOUNDED, warning),) if limited else ())):
        for flag, reason in table.items():
            if _name(flag) in found:
                yield mark(NAME, f"{flag} {reason}", f"remove {flag} from [comfyui] args")
    for flag in ("--reserve-vram", "--vram-headroom"):
        if (size := found.get(_name(flag), 0.0)) > RESERVED:
            yield warning(NAME, f"{flag} keeps {size:g} GB of video memory unused", f"lower it to {RESERVED:g} or less")
    if found.get("max_upload_size", UPLOAD) < UPLOAD:
        yield warning(NAME, "--max-upload-size refuses pictures that the miner accepts", f"raise it to {UPLOAD:g}")
    if found.get("fast"):
        says = f"--fast {' '.join(found['fast'])} can change pictures, and was not compared on this GPU"
        yield note(NAME, says, "remove it, and let xalora-miner bench --tune choose")
    for path in _log_files(found.get("verbose")):
        says = f"--verbose writes {path}, which the miner neither limits nor clears of tasks"
        yield warning(NAME, says, "remove the file's name from [comfyui] args")


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _log_files(verbose: object) -> list[str]:
    """0.33.0's pairs of a level and a file, or no file; 0.3.64 has a level alone."""
    pairs = verbose if isinstance(verbose, list) else []
    return [str(Path(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2 and pair[1]]
