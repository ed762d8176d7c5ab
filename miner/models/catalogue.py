"""What workflows need of weights, and what that means for this machine. Pure.

Promises: a file that several workflows name is one file. Two manifests that say different things of the same file are
a ConfigError, since one of the two workflows would never render what its author saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from miner.task.errors import ConfigError
from miner.workflows import Model, Workflow

GIGABYTE = 10**9  # bytes

State = Literal["there", "partial", "missing", "differs"]
"""there: as far as is known without reading it · partial: some of it in a .part file · differs: another file has its
name, or it is damaged"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file under ComfyUI's models folder."""

    folder: str
    name: str
    url: str = field(repr=False)  # an operator's own may carry a token
    size: int | None = None  # bytes, where known
    sha256: str = ""  # in hex, where known
    licence: str = ""
    gated: str = ""  # the page where its licence has to be accepted first
    needed_by: tuple[str, ...] = ()  # names of workflows

    @property
    def relative_path(self) -> str:
        """`folder/name`, which names it for people too."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """A file, and how it is on the disk."""

    file: ModelFile
    state: State
    path: Path  # where it is, or will be
    present_bytes: int = 0  # bytes that need not be fetched
    reason: str = ""  # what differs

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be fetched, as far as the size is known."""
        return 0 if self.state == "there" else max((self.file.size or 0) - self.present_bytes, 0)


def files_of(workflows: Iterable[Workflow]) -> tuple[ModelFile, ...]:
    """Every file that `workflows` need, once, in their order. Raises ConfigError where two contradict each other."""
    files: dict[str, ModelFile] = {}
    for workflow in workflows:
        for model in workflow.manifest.models:
            new = _file(model, workflow.name)
            files[new.relative_path] = _merged(files[new.relative_path], new) if new.relative_path in files else new
    return tuple(files.values())


def fitting(workflows: Iterable[Workflow], *, memory: int) -> tuple[Workflow, ...]:
    """Those that a GPU with `memory` bytes has room for, by their manifests: preflight's rule."""
    return tuple(workflow for workflow in workflows if workflow.manifest.needs.vram_gb * GIGABYTE <= memory)


def unneeded(workflows: Sequence[Workflow], enabled: Iterable[str]) -> tuple[ModelFile, ...]:
    """The files that known workflows name and no enabled one needs."""
    wanted = set(enabled)
    kept = {file.relative_path for file in files_of(workflow for workflow in workflows if workflow.name in wanted)}
    return tuple(file for file in files_of(workflows) if file.relative_path not in kept)


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
            text = f"{one.needed_by[0]} says {said}, and {two.needed_by[0]} {other}"
            raise ConfigError(f"models: {one.relative_path}: {key}: {text}", hint="give one of the two another name")
    return replace(
        one,
        size=one.size or two.size,
        sha256=one.sha256 or two.sha256,
        gated=one.gated or two.gated,
        needed_by=(*one.needed_by, *two.needed_by),
    )


def gb(size: int | None) -> str:
    """Bytes as people read them; tiny files are not 0.0 GB."""
    if size is None:
        return "?"
    return f"{size / 1e9:.1f} GB" if size >= 50_000_000 else f"{size / 1e6:.1f} MB"
