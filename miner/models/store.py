"""The folders that models are in: where a file goes, where it may be already, and whether it is there."""

from __future__ import annotations

from pathlib import Path

from miner.config import Settings
from miner.models.catalogue import FileStatus, ModelFile, State
from miner.models.hash_db import HashDatabase
from miner.models.partial_file import partial_path
from miner.task.errors import ConfigError

_OLD_NAMES = {"text_encoders": "clip", "diffusion_models": "unet"}
"""ComfyUI looks into these, too (`folder_paths.py`, 0.3.64 and 0.33.0)."""


class Store:
    """Files go under `root`; ComfyUI finds them under `also` as well. Reads the disk, and writes nothing."""

    def __init__(self, root: Path, *, also: tuple[Path, ...] = ()) -> None:
        self.root = root.absolute()
        self._also = also

    def target(self, file: ModelFile) -> Path:
        """Where the file goes."""
        return self.root / file.folder / file.name

    def status(self, file: ModelFile, hash_db: HashDatabase) -> FileStatus:
        """How the file is on the disk, by its size and the hashes that are known already: nothing of it is read."""
        target = self.target(file)
        found = [status for path in self._places(file) if path.is_file() for status in (_judged(file, path, hash_db),)]
        if there := next((status for status in found if status.state == "there"), None):
            return there
        partial = partial_path(target)
        present_bytes = partial.stat().st_size if partial.is_file() else 0
        if differing := next((status for status in found if status.path == target), None):
            return differing
        state: State = "partial" if present_bytes else "missing"
        return FileStatus(
            file=file, state=state, path=target, present_bytes=min(present_bytes, file.size or present_bytes)
        )

    def _places(self, file: ModelFile) -> list[Path]:
        first, _, rest = file.folder.partition("/")
        folders = [file.folder, *(f"{old}/{rest}".rstrip("/") for old in (_OLD_NAMES.get(first),) if old)]
        return [root / folder / file.name for root in (self.root, *self._also) for folder in folders]


def _judged(file: ModelFile, path: Path, hash_db: HashDatabase) -> FileStatus:
    size, known = path.stat().st_size, hash_db.hash_of(path)
    wanted = file.sha256 or hash_db.downloaded_hash(path)
    reason = ""
    if file.size is not None and size != file.size:
        reason = f"it has {size} bytes, and should have {file.size}"
    elif wanted and known and known != wanted:
        reason = f"its SHA-256 is {known[:12]}…, and should be {wanted[:12]}…"
    return FileStatus(
        file=file, state="differs" if reason else "there", path=path, present_bytes=0 if reason else size, reason=reason
    )


def store_of(settings: Settings) -> Store:
    """The models folder that the settings mean. Raises ConfigError where they mean none."""
    home, folder = settings.comfyui.home, settings.models.dir
    if home is not None and not home.is_dir():
        raise ConfigError(f"comfyui.home: there is no folder {home}", hint="see XALORA_COMFYUI_HOME")
    own = home / "models" if home else None
    if folder is not None:
        return Store(folder, also=(own.absolute(),) if own else ())
    if own is not None:
        return Store(own)
    if settings.comfyui.url:
        raise ConfigError(
            "models.dir is not set, and where the ComfyUI at comfyui.url has its models is not known here",
            hint="set XALORA_MODELS_DIR to its models folder, if that is on this machine",
        )
    raise ConfigError(
        "models.dir is not set, and neither is comfyui.home, so there is no folder for models",
        hint="set XALORA_COMFYUI_HOME to the folder of a ComfyUI, or XALORA_MODELS_DIR to one of models",
    )
