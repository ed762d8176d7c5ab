"""How to start a managed ComfyUI: its command line, environment and folders.

It promises loopback only, no API nodes, only the named custom nodes, and none of the miner's secrets; and no flag that
turns ComfyUI's dynamic memory off. ComfyUI 0.3.64 and 0.33.0 know every flag here (`comfy/cli_args.py`). It makes
folders and one file; it starts nothing.
"""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from miner import engine
from miner.comfy import memory_limit
from miner.task.errors import ConfigError
from miner.task.journal_file import unusable

PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
        *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),  # by name: NVIDIA_API_KEY is a secret
        *("TORCH_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"),
    }
)
PASSED_ON_PREFIXES = ("CUDA_", "PYTORCH_", "HIP_", "HSA_", "ROCR_", "MALLOC_")

RESERVED = "1.0"
"""GB of video memory to leave on a card that a desktop shares: the 0.4 GB that ComfyUI leaves to others anyhow
(`EXTRA_RESERVED_VRAM`), and what a desktop usually takes, for windows that are opened later."""

MODEL_FOLDERS = (
    *("audio_encoders", "background_removal", "checkpoints", "classifiers", "clip", "clip_vision", "configs"),
    *("controlnet", "detection", "diffusers", "diffusion_models", "embeddings", "frame_interpolation"),
    *("geometry_estimation", "gligen", "hypernetworks", "latent_upscale_models", "loras", "model_patches"),
    *("optical_flow", "photomaker", "style_models", "text_encoders", "unet", "upscale_models", "vae", "vae_approx"),
)
"""ComfyUI's model folders (`folder_paths.py`); an older one ignores the newer names. It maps the old names `clip` and
`unet` itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything needed to start one ComfyUI and to reach it."""

    lane: str  # names its folder: <state>/comfyui-<lane>
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(repr=False)  # the complete environment
    url: str
    output_dir: Path
    input_dir: Path


def managed_launch(
    *,
    home: Path,
    python: Path,
    port: int,
    gpu: str | None,
    state: Path,
    models_dir: Path | None,
    extra_args: Sequence[str] = (),
    custom_nodes: Sequence[str] = (),
    desktop: bool = False,
    limited: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Launch:
    """The ComfyUI at `home`, on one GPU.

    `python` is a path, or, without a slash, a name on the PATH. `gpu` is an index in `nvidia-smi`'s order or a UUID;
    None leaves the choice to ComfyUI. `models_dir` is searched before ComfyUI's own models. `custom_nodes` are folder
    names under `home`/custom_nodes. `extra_args` may change anything except what the miner relies on. `desktop`: one
    shares the GPU. `limited`: the memory is, see `memory_limit`. Raises ConfigError if `home` has no ComfyUI or the
    folders cannot be made.
    """
    if not (home / "main.py").is_file():
        raise ConfigError(f"comfyui.home: no ComfyUI at {home}: main.py is missing", hint="set XALORA_COMFYUI_HOME")
    lane = re.sub(r"[^\w.-]", "_", gpu) if gpu else "default"
    within = (memory_limit.__file__,) if limited else ()
    return _launch(
        (str(python if len(python.parts) == 1 else python.absolute()), *within, "main.py"),
        lane=lane,
        cwd=home.absolute(),
        port=port,
        state=state,
        models_dir=models_dir,
        extra_args=(*(("--reserve-vram", RESERVED) if desktop else ()), *extra_args),
        custom_nodes=custom_nodes,
        env=child_environment(environ, gpu),
    )


def embedded_launch(
    *,
    port: int,
    state: Path,
    models_dir: Path | None = None,
    extra_args: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Launch:
    """The embedded engine, on the CPU, with the same flags. Raises ConfigError as above."""
    return _launch(
        (sys.executable, "-m", engine.__name__),
        lane="embedded",
        cwd=Path(engine.__file__).absolute().parents[2],  # so that -m finds it, installed or not
        port=port,
        state=state,
        models_dir=models_dir,
        extra_args=extra_args,
        env=child_environment(environ, None),
    )


def python_of(home: Path) -> Path | None:
    """The Python of a ComfyUI's own environment, `venv` or `.venv` in its folder; None without either."""
    own = (home / name / "bin" / "python" for name in ("venv", ".venv"))
    return next((python for python in own if python.exists()), None)


def lane_folder(state: Path, lane: str) -> Path:
    """The folder of one managed ComfyUI."""
    return state.absolute() / f"comfyui-{lane}"


def child_environment(environ: Mapping[str, str], gpu: str | None) -> dict[str, str]:
    """The part of `environ` that ComfyUI gets: an allow-list, since nobody can name every secret."""
    passed = {k: v for k, v in environ.items() if k in PASSED_ON or k.startswith(PASSED_ON_PREFIXES)}
    env = {"LANG": "C.UTF-8", **passed, "PYTHONUNBUFFERED": "1"}  # unbuffered, so that the last lines reach the log
    if gpu is not None:
        # CUDA's default order is fastest first; nvidia-smi uses the bus order
        env |= {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return env


def _launch(
    program: Sequence[str],
    *,
    lane: str,
    cwd: Path,
    port: int,
    state: Path,
    models_dir: Path | None,
    extra_args: Sequence[str],
    env: Mapping[str, str],
    custom_nodes: Sequence[str] = (),
) -> Launch:
    folder = lane_folder(state, lane)
    text = model_paths(models_dir.absolute()) if models_dir is not None else ""
    # named by its content: another configuration neither changes a running ComfyUI's nor adopts that one
    paths = folder / f"model_paths-{zlib.crc32(text.encode()):08x}.yaml" if text else None
    launch = Launch(
        lane=lane,
        # the last flag wins: the operator's over our defaults, and those that the miner needs over the operator's
        argv=(
            *(*program, "--preview-method", "auto", *extra_args),
            *_needed_flags(folder, port, paths, custom_nodes),
        ),
        cwd=cwd,
        env=env,
        url=f"http://127.0.0.1:{port}",
        output_dir=folder / "output",
        input_dir=folder / "input",
    )
    try:
        _make_folder(folder)
        if paths is not None:
            paths.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unusable(state, error) from error
    return launch


def _needed_flags(folder: Path, port: int, paths: Path | None, custom_nodes: Sequence[str]) -> tuple[str, ...]:
    return (
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--output-directory", str(folder / "output"), "--input-directory", str(folder / "input")),
        *("--temp-directory", str(folder / "temp"), "--user-directory", str(folder / "user")),
        *("--database-url", f"sqlite:///{folder}/comfyui.db"),  # the default is shared by all and locked by the first
        *("--disable-metadata", "--disable-auto-launch", "--disable-api-nodes", "--disable-all-custom-nodes"),
        *(("--whitelist-custom-nodes", *custom_nodes) if custom_nodes else ()),
        *(("--extra-model-paths-config", str(paths)) if paths is not None else ()),
    )


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("output", "input", "temp", "user"):
        (folder / name).mkdir(exist_ok=True)


def model_paths(models_dir: Path) -> str:
    """ComfyUI's extra_model_paths file (YAML). Absolute paths, because it expands `$` in a `base_path`."""
    quoted = str(models_dir).replace("'", "''")
    return "miner:\n  is_default: true\n" + "".join(f"  {name}: '{quoted}/{name}'\n" for name in MODEL_FOLDERS)
