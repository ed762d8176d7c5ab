"""The models folders: where a file is stored, and its state on the disk."""

from __future__ import annotations

from pathlib import Path

from miner.config import Settings
from miner.models.catalogue import FileStatus, ModelFile, State
from miner.models.hash_db import HashDatabase
from miner.models.partial_file import partial_path
from miner.task.errors import ConfigError

_OLD_NAMES = {"text_encoders": "clip", "diffusion_models": "unet"}
"""ComfyUI also looks into these (`folder_paths.py`, 0.3.64 and 0.33.0)."""


class Store:
    """Files are stored under `root`; ComfyUI also finds them under `also`. Never writes."""

    def __init__(self, root: Path, *, also: tuple[Path, ...] = ()) -> None:
        self.root = root.absolute()
        self._also = also

    def target(self, file: ModelFile) -> Path:
        """Where the file is stored."""
        return self.root / file.folder / file.name

    def status(self, file: ModelFile, hash_db: HashDatabase) -> FileStatus:
        """The state of the file on the disk, by its size and its known hash: it is not read."""
        target = self.target(file)
        found = [_status_at(file, path, hash_db) for path in self._paths(file) if path.is_file()]
        if present := next((status for status in found if status.state == "present"), None):
            return present
        partial = partial_path(target)
        size = partial.stat().st_size if partial.is_file() else 0
        if differing := next((status for status in found if status.path == target), None):
            return differing
        state: State = "partial" if size else "missing"
        return FileStatus(file=file, state=state, path=target, present_bytes=min(size, file.size or size))

    def _paths(self, file: ModelFile) -> list[Path]:
        first, _, rest = file.folder.partition("/")
        folders = [file.folder, *(f"{old}/{rest}".rstrip("/") for old in (_OLD_NAMES.get(first),) if old)]
        return [root / folder / file.name for root in (self.root, *self._also) for folder in folders]


def _status_at(file: ModelFile, path: Path, hash_db: HashDatabase) -> FileStatus:
    size, known = path.stat().st_size, hash_db.hash_of(path)
    wanted = file.sha256 or hash_db.downloaded_hash(path)
    reason = ""
    if file.size is not None and size != file.size:
        reason = f"it has {size} bytes, expected {file.size}"
    elif wanted and known and known != wanted:
        reason = f"its SHA-256 is {known[:12]}…, expected {wanted[:12]}…"
    if reason:
        return FileStatus(file=file, state="differs", path=path, reason=reason)
    return FileStatus(file=file, state="present", path=path, present_bytes=size)


def store_of(settings: Settings) -> Store:
    """The models folder of the settings. Raises ConfigError where they have none."""
    home, folder = settings.comfyui.home, settings.models.dir
    if home is not None and not home.is_dir():
        raise ConfigError(f"comfyui.home: {home} is not a folder", hint="check XALORA_COMFYUI_HOME")
    own = home / "models" if home else None
    if folder is not None:
        return Store(folder, also=(own.absolute(),) if own else ())
    if own is not None:
        return Store(own)
    if settings.comfyui.url:
        raise ConfigError(
            "models.dir is not set, and the models folder of the ComfyUI at comfyui.url is unknown",
            hint="set XALORA_MODELS_DIR to its models folder, if it is on this machine",
        )
    raise ConfigError(
        "neither models.dir nor comfyui.home is set, so the models folder is unknown",
        hint="set XALORA_COMFYUI_HOME to the folder of a ComfyUI, or XALORA_MODELS_DIR to a models folder",
    )
