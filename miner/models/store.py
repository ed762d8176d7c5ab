"""The models folders: where a file is stored, and its state on the disk."""

from __future__ import annotations

from pathlib import Path

from miner.config import Settings
from miner.models.catalogue import FileStatus, ModelFile, State
from miner.models.folders import Found, ModelFolders, folders_of
from miner.models.hash_db import HashDatabase
from miner.models.partial_file import partial_path
from miner.task.errors import ConfigError


class Store:
    """Files are stored under `root`, and found where ComfyUI finds them. Never writes."""

    def __init__(self, root: Path, folders: ModelFolders | None = None) -> None:
        self.root = root.absolute()
        self.folders = folders or ModelFolders(self.root)

    def target(self, file: ModelFile) -> Path:
        """Where the file is stored."""
        return self.root / file.folder / file.name

    def status(self, file: ModelFile, hash_db: HashDatabase) -> FileStatus:
        """The state of the file on the disk, by its size, its head and its known hash."""
        target, places = self.target(file), self.folders.places(file.folder, file.name)
        if (found := self.folders.find(file.folder, file.name, size=file.size)) is not None:
            status = _status_of(file, found, hash_db)
            # a file that ComfyUI finds after the target no longer counts once the target is there
            if status.state == "present" or target not in places[: places.index(found.path)]:
                return status
        partial = partial_path(target)
        size = partial.stat().st_size if partial.is_file() else 0
        state: State = "partial" if size else "missing"
        return FileStatus(file=file, state=state, path=target, present_bytes=min(size, file.size or size))


def _status_of(file: ModelFile, found: Found, hash_db: HashDatabase) -> FileStatus:
    path = found.path
    if found.flaw:
        return FileStatus(file=file, state="broken", path=path, reason=f"it {found.flaw}")
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
    if folder is not None:
        return Store(folder, folders_of(settings))
    if home is not None and (own := (folders := folders_of(settings)).own) is not None:
        return Store(own, folders)
    if settings.comfyui.url:
        raise ConfigError(
            "models.dir is not set, and the models folder of the ComfyUI at comfyui.url is unknown",
            hint="set XALORA_MODELS_DIR to its models folder, if it is on this machine",
        )
    raise ConfigError(
        "neither models.dir nor comfyui.home is set, so the models folder is unknown",
        hint="set XALORA_COMFYUI_HOME to the folder of a ComfyUI, or XALORA_MODELS_DIR to a models folder",
    )
