"""Where a ComfyUI on this machine looks for models, in its own order: the first file of a name is the one it loads.

By `folder_paths.py`, `utils/extra_config.py` and `main.py` of 0.3.64 and 0.33.0: its models folder, then
`extra_model_paths.yaml` beside `main.py`, then each `--extra-model-paths-config`; `is_default` comes first. Reads those
files and looks at paths. Never: writes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from miner.comfy.launch import MODEL_FOLDERS
from miner.comfy.weights import Weights, weights_of
from miner.config import Settings
from miner.engine.modelpaths import ModelPathsError, read_extra_paths
from miner.models import safetensors
from miner.models.flaws import flaw_of
from miner.models.folder_watch import scan
from miner.models.lora_base import kind_of_header
from miner.workflows import Workflow

log = structlog.get_logger()

_LEGACY = {"clip": "text_encoders", "unet": "diffusion_models"}
_BESIDE = {
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "controlnet": ("controlnet", "t2i_adapter"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The file that ComfyUI takes for a model."""

    path: Path
    flaw: str  # why it cannot be loaded, as the end of a sentence; "" where nothing shows


@dataclass(slots=True)
class ModelFolders:
    """`own`: ComfyUI's models folder. `more`: further folders, each (folder name, path, whether it comes first)."""

    own: Path | None
    more: Iterable[tuple[str, Path, bool]] = ()
    readable: bool = True  # ComfyUI runs as this user, so that what we may not read it may not either
    writing: Collection[tuple[int, int]] = ()  # device and inode of files that are being written
    _paths: dict[str, list[Path]] = field(init=False, default_factory=dict)
    _judged: dict[Path, tuple[object, str]] = field(init=False, default_factory=dict)  # path → its stamp, its flaw
    _bases: dict[Path, tuple[object, str]] = field(init=False, default_factory=dict)  # path → its stamp, its base

    def __post_init__(self) -> None:
        for folder, path, first in self.more:
            paths = self._paths.setdefault(_LEGACY.get(folder, folder), self._own(_LEGACY.get(folder, folder)))
            if path not in paths:
                paths.insert(0 if first else len(paths), path)
            elif first:
                paths.remove(path)
                paths.insert(0, path)

    def _own(self, folder: str) -> list[Path]:
        return [] if self.own is None else [self.own / name for name in _BESIDE.get(folder, (folder,))]

    @property
    def roots(self) -> tuple[Path, ...]:
        """Every folder to watch."""
        own = () if self.own is None else (self.own,)
        return (*own, *dict.fromkeys(path for paths in self._paths.values() for path in paths))

    def places(self, folder: str, name: str) -> list[Path]:
        """Where ComfyUI looks for `name`, first to last."""
        first, _, rest = folder.partition("/")
        first = _LEGACY.get(first, first)
        return [path / rest / name.replace("\\", "/") for path in self._paths.get(first, self._own(first))]

    def find(self, folder: str, name: str, *, size: int | None = None) -> Found | None:
        """The file for `name` in a folder such as `vae` or `loras/style`; None if there is none on this machine.

        `size`: bytes that it should have. Reads its head. `\\` in a name is a slash.
        """
        paths = self.places(folder, name)
        path = next((path for path in paths if path.is_file()), None) or next(filter(os.path.lexists, paths), None)
        if path is None:
            return None
        unknown = not self.readable and not os.access(path, os.R_OK) and path.is_file()
        return Found(path=path, flaw="" if unknown else self._flaw(path, size))

    def find_any(self, name: str) -> list[Found]:
        """The file for `name` in each kind of folder that has one."""
        kinds = dict.fromkeys((*MODEL_FOLDERS, *self._paths))
        return [found for kind in kinds if kind not in _LEGACY and (found := self.find(kind, name)) is not None]

    def broken(
        self, workflows: Iterable[Workflow], loras: Iterable[str] = (), *, again: bool = False
    ) -> dict[Weights, str]:
        """What is wrong with the weights of `workflows` and with `loras`, where something shows: "it is empty".

        Reads the heads of files that it has not seen as they are now; `again`: of all. Of a name whose folder is
        unknown, every file has to be broken.
        """
        if again:
            self._judged.clear()
        sizes: dict[Weights, int | None] = {("loras", name): None for name in loras}
        for workflow in workflows:
            sizes |= weights_of(workflow)
        flaws: dict[Weights, str] = {}
        for (folder, name), size in sizes.items():
            found = [self.find(folder, name, size=size)] if folder else self.find_any(name)
            told = [one.flaw for one in found if one is not None]
            if told and all(told):
                flaws[folder, name] = f"it {told[0]}"
        return flaws

    def broken_loras(self) -> dict[str, str]:
        """The LoRAs on this machine that ComfyUI lists and cannot load, by its names: "it is empty"."""
        return {name: flaw for (_, name), flaw in sorted(self.broken((), self.lora_names()).items())}

    def lora_names(self) -> set[str]:
        """The LoRAs on this machine that ComfyUI lists, by its names, without pickles."""
        roots = self.places("loras", "")
        paths = [(root, path) for root in roots for path in scan([root]) if path.lower().endswith(".safetensors")]
        return {os.path.relpath(path, root) for root, path in paths}

    def lora_bases(self, names: Iterable[str]) -> dict[str, str]:
        """The base models of LoRAs, by ComfyUI's names, as far as their tensors tell and the files are on this machine.

        Reads the heads of files that it has not seen as they are now.
        """
        bases = {name: self._base(found) for name in names if (found := self.find("loras", name)) and not found.flaw}
        return {name: base for name, base in bases.items() if base}

    def _base(self, found: Found) -> str:
        try:
            now = found.path.stat()
            stamp = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
            known, base = self._bases.get(found.path, (None, ""))
            if known != stamp:
                with found.path.open("rb") as file:
                    base = kind_of_header(safetensors.read_header(file)).base or ""
                self._bases[found.path] = stamp, base
        except OSError:  # gone, or not ours to read
            return ""
        return base

    def _flaw(self, path: Path, size: int | None) -> str:
        """The file's flaw, judged again only if it changed."""
        try:
            now = path.stat()
            stamp = (size, now.st_dev, now.st_ino, now.st_mode, now.st_size, now.st_mtime_ns)
        except OSError:
            return flaw_of(path, size=size)
        if (now.st_dev, now.st_ino) in self.writing:
            return "is still being written"
        known, flaw = self._judged.get(path, (None, ""))
        if known != stamp:
            flaw = flaw_of(path, size=size)
            self._judged[path] = stamp, flaw
        return flaw


def folders_of(settings: Settings) -> ModelFolders:
    """The models folders of the settings' ComfyUI, as far as they are on this machine and known."""
    home, models_dir = settings.comfyui.home, settings.models.dir
    if settings.comfyui.url:
        if models_dir is None:
            return ModelFolders(None)
        beside = models_dir.absolute().parent  # its home, if it is ComfyUI's own models folder
        more = _extra(beside, ()) if (beside / "main.py").is_file() else ()
        return ModelFolders(models_dir.absolute(), more, readable=False)
    ours = [(name, models_dir.absolute() / name, True) for name in MODEL_FOLDERS] if models_dir else []
    if home is None:
        return ModelFolders(None, ours)
    flags = _flags(settings.comfyui.args)
    base = home.absolute() / (flags.base_directory or "")
    own = home.absolute() / flags.models_directory if flags.models_directory else base / "models"
    configs = [home.absolute() / config for several in flags.extra_model_paths_config for config in several]
    return ModelFolders(own, [*_extra(home.absolute(), configs), *ours])


def _extra(home: Path, configs: Sequence[Path]) -> Iterator[tuple[str, Path, bool]]:
    """What ComfyUI's own files add."""
    beside = home / "extra_model_paths.yaml"
    for config in (*([beside] if beside.is_file() else []), *configs):
        try:
            yield from read_extra_paths(config)
        except ModelPathsError as error:
            log.warning("model_paths_unreadable", reason=str(error), next="not looking for models there")


def _flags(args: Sequence[str]) -> argparse.Namespace:
    """What the operator's `comfyui.args` say of folders."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--base-directory")
    parser.add_argument("--models-directory")
    parser.add_argument("--extra-model-paths-config", nargs="+", action="append", default=[])
    try:
        return parser.parse_known_args(list(args))[0]
    except argparse.ArgumentError:  # ComfyUI will say so
        return parser.parse_args([])
