"""The model files that workflows need. Pure.

Promises: a file that several workflows name is one file. Manifests that contradict each other about a file are a
ConfigError, since one of the workflows would render with the wrong weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from miner.task.errors import ConfigError
from miner.workflows import Model, Workflow

State = Literal["present", "partial", "missing", "differs", "broken"]
"""present: as far as known without reading all of it · partial: some of it is in a .part file · differs: another file
has its name, which ComfyUI would load · broken: ComfyUI cannot load it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file under ComfyUI's models folder."""

    folder: str
    name: str
    url: str = field(repr=False)  # can hold an operator's token
    size: int | None = None  # bytes, where known
    sha256: str = ""  # in hex, where known
    licence: str = ""
    gated: str = ""  # URL of the page where its licence has to be accepted
    needed_by: tuple[str, ...] = ()  # names of workflows
    token: str = field(default="", repr=False)  # for the site of a civitai: reference
    endpoint: str = "https://civitai.com"  # that site, or a mirror

    @property
    def relative_path(self) -> str:
        """`folder/name`, also used in messages."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """A file and its state on the disk."""

    file: ModelFile
    state: State
    path: Path  # where it is or will be
    present_bytes: int = 0  # bytes that need no download
    reason: str = ""  # what differs, or is broken

    @property
    def missing_bytes(self) -> int:
        """Bytes still to download; 0 where the size is unknown."""
        return 0 if self.state == "present" else max((self.file.size or 0) - self.present_bytes, 0)


def files_of(workflows: Iterable[Workflow]) -> tuple[ModelFile, ...]:
    """Every file that `workflows` need, once, in their order: of one with variants, those of all.

    Raises ConfigError for a contradiction.
    """
    files: dict[str, ModelFile] = {}
    for workflow in workflows:
        for model in workflow.manifest.models:
            new = _file(model, workflow.name)
            files[new.relative_path] = _merged(files[new.relative_path], new) if new.relative_path in files else new
    return tuple(files.values())


def unneeded(workflows: Sequence[Workflow], kept: Iterable[Workflow]) -> tuple[ModelFile, ...]:
    """The files that `workflows` name, of any variant, and none of `kept` needs."""
    wanted = {file.relative_path for file in files_of(kept)}
    return tuple(file for file in files_of(workflows) if file.relative_path not in wanted)


def _file(model: Model, workflow: str) -> ModelFile:
    return ModelFile(
        folder=model.folder,
        name=model.name,
        url=model.url,
        size=model.size,
        sha256=model.sha256 or "",
        licence=model.licence,
        gated=model.gated or "",
        needed_by=(workflow,),
    )


def _merged(one: ModelFile, two: ModelFile) -> ModelFile:
    for key in ("size", "sha256"):
        said, other = getattr(one, key), getattr(two, key)
        if said and other and said != other:
            text = f"{one.needed_by[0]} says {said}, {two.needed_by[0]} says {other}"
            raise ConfigError(f"models: {one.relative_path}: {key}: {text}", hint="rename the file in one of the two")
    return replace(
        one,
        size=one.size or two.size,
        sha256=one.sha256 or two.sha256,
        gated=one.gated or two.gated,
        needed_by=tuple(dict.fromkeys((*one.needed_by, *two.needed_by))),
    )
