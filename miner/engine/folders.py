"""The engine's folders, and the only way to a path in them.

A name from the wire never leads outside its folder. The names and the counter of saved files are ComfyUI's:
`prefix_00001_.png`, counting on from what is there.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from miner.engine.flags import Flags
from miner.engine.modelpaths import read_extra_paths

# fmt: off
MODEL_FOLDERS = (
    "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models",
    "embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models", "custom_nodes",
    "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders",
)
# fmt: on
MODEL_SUFFIXES = frozenset({".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"})
_ANNOTATED = re.compile(r"(?P<name>.*?) ?\[(?P<kind>output|input|temp)\]$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where the next file of a prefix goes: `folder / f"{stem}_{counter:05}_.png"`."""

    folder: Path
    stem: str
    counter: int
    subfolder: str  # relative to the kind's folder, "" for the folder itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Absolute folders, which exist."""

    input: Path
    output: Path
    temp: Path
    user: Path
    models: Mapping[str, tuple[Path, ...]]  # ComfyUI's folder name → where to look, first match wins

    def of(self, kind: str) -> Path | None:
        """The folder of a kind (`input`, `output`, `temp`), or None."""
        return {"input": self.input, "output": self.output, "temp": self.temp}.get(kind)

    def find(self, name: str, *, kind: str = "input") -> Path | None:
        """The path that `name` or `name [kind]` means, existing or not; None if it leads outside."""
        bare, marked = annotation(name)
        root = self.of(marked or kind)
        return inside(root, bare) if root else None

    def model_names(self, folder: str) -> list[str]:
        """The model files of a folder, as relative names, sorted. Raises KeyError for an unknown folder."""
        found = {
            str(path.relative_to(root))
            for root in self.models[folder]
            for path in root.rglob("*")
            if path.suffix.lower() in MODEL_SUFFIXES and path.is_file()
        }
        return sorted(found)

    def model(self, folder: str, name: str) -> Path | None:
        """The file of a model, or None."""
        candidates = (inside(root, name) for root in self.models[folder])
        return next((path for path in candidates if path and path.is_file()), None)

    def slot(self, prefix: str, *, kind: str, size: tuple[int, int]) -> Slot:
        """The next free name for `prefix`, whose subfolder is made. `size` is in pixels, for %width% and %height%.

        ValueError if the prefix leads outside of the kind's folder.
        """
        root = {"output": self.output, "temp": self.temp}[kind]
        relative = Path(os.path.normpath(_expand(prefix, size)))
        folder = inside(root, str(relative.parent))
        if folder is None:
            raise ValueError(f"Saving image outside the output folder is not allowed: {prefix!r}")
        folder.mkdir(parents=True, exist_ok=True)
        subfolder = "" if folder == root else str(folder.relative_to(root))
        return Slot(
            folder=folder, stem=relative.name, counter=_next_counter(folder, relative.name), subfolder=subfolder
        )


def prepare(flags: Flags, base: Path) -> Folders:
    """Make the folders that `flags` ask for, with an empty temp folder, as ComfyUI does when it starts."""
    models = flags.models or base / "models"
    places = {name: [models / name] for name in MODEL_FOLDERS}
    for config in flags.extra_model_paths:
        for folder, path, first in read_extra_paths(config):
            places.setdefault(folder, []).insert(0 if first else len(places[folder]), path)
    temp = (flags.temp or base) / "temp"
    shutil.rmtree(temp, ignore_errors=True)
    folders = Folders(
        input=flags.input or base / "input",
        output=flags.output or base / "output",
        temp=temp,
        user=flags.user or base / "user",
        models={name: tuple(paths) for name, paths in places.items()},
    )
    for path in (folders.input, folders.output, folders.temp, folders.user):
        path.mkdir(parents=True, exist_ok=True)
    return folders


def annotation(name: str) -> tuple[str, str | None]:
    """`"a.png [temp]"` → `("a.png", "temp")`; without a mark the kind is None."""
    match = _ANNOTATED.fullmatch(name)
    return (match["name"], match["kind"]) if match else (name, None)


def inside(root: Path, name: str) -> Path | None:
    """`root / name`, or None if that is outside `root` after following links."""
    path = Path(os.path.normpath(root / name))
    try:
        return path if path.resolve().is_relative_to(root.resolve()) else None
    except ValueError:  # a null byte
        return None


def _expand(prefix: str, size: tuple[int, int]) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {"width": str(size[0]), "height": str(size[1]), "year": str(now.tm_year)}
    clock = {"month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}
    for name, value in (values | {name: f"{value:02}" for name, value in clock.items()}).items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _next_counter(folder: Path, stem: str) -> int:
    """One more than the highest counter of this stem, whatever the suffix: formats share a counter."""
    used = re.compile(re.escape(stem) + r"_(\d+)(?:_[^.]*)?\.", re.DOTALL)
    counters = [int(match[1]) for entry in os.scandir(folder) if (match := used.match(entry.name))]
    return max(counters, default=0) + 1
