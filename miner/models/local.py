"""The models of this machine, by the settings: what every `models` command works on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import structlog

from miner.config import Settings
from miner.machine import tuning
from miner.machine.cards import cards_here
from miner.models.catalogue import FileStatus, ModelFile, files_of
from miner.models.disk import disk_errors, require_room
from miner.models.hash_db import HashDatabase
from miner.models.lora_index import kept_in
from miner.models.lora_register import LoraRegister, Registered
from miner.models.lora_set import FOLDER, named_files
from miner.models.progress import Progress, Stop
from miner.models.prune import UnusedFile, unused_files
from miner.models.pull import JOBS, Report, in_parallel, pull
from miner.models.source import without_query
from miner.models.store import store_of
from miner.models.verify import verified
from miner.models.wanted import Wanted, wanted
from miner.telemetry.sizes import GIGABYTE
from miner.workflows import Card, Library, Workflow

log = structlog.get_logger()


class LoraRow(NamedTuple):
    """A LoRA on this machine. `base`, `origin`: "" where unknown; `size` in bytes; `used_at`: Unix seconds."""

    name: str
    base: str
    size: int | None
    origin: str
    used_at: float | None


class LocalModels:
    """A context manager, for one thread. Methods raise MachineFault for errors of the disk and the hash database."""

    def __init__(self, settings: Settings, library: Library) -> None:
        """Raises ConfigError if the settings lack a models folder or name an unknown workflow."""
        self.settings = settings
        self.library = library
        self.store = store_of(settings)
        self.enabled = tuple(library.get(name) for name in settings.workflows.enabled)
        self.hash_db = HashDatabase(settings.state.dir)
        self._found: tuple[tuple[Card, ...], str] | None = None
        self.register = LoraRegister(settings.state.dir)

    def __enter__(self) -> LocalModels:
        return self

    def __exit__(self, *_: object) -> None:
        self.hash_db.close()

    def workflows(self, names: Sequence[str] | None) -> tuple[Workflow, ...]:
        """The workflows of these names, else the enabled ones. Raises ConfigError."""
        return tuple(self.library.get(name) for name in names) if names else self.enabled

    @property
    def cards(self) -> tuple[Card, ...]:
        """This machine's cards, as far as known. The first call blocks for the probe: seconds."""
        return self._probe()[0]

    @property
    def without_gpu(self) -> str:
        """Why no card is known, in a sentence; "" where one is."""
        cards, problem = self._probe()
        return "" if cards else problem

    def _probe(self) -> tuple[tuple[Card, ...], str]:
        if self._found is None:
            self._found = cards_here(self.settings)
        return self._found

    def wanted(self, workflows: Sequence[Workflow]) -> tuple[Wanted, ...]:
        """The variants of `workflows` for this machine's cards. Blocks for the probe if there is a choice."""
        where = self.settings.workflows
        cards = self.cards if any(workflow.manifest.variants for workflow in workflows) else ()
        return wanted(workflows, cards, pinned=where.variants, on_cpu=where.on_cpu)

    def fitting(self, workflows: Sequence[Workflow]) -> tuple[Wanted, ...]:
        """Those that fit a card of this machine; the others are logged. Blocks for the probe."""
        where = self.settings.workflows
        log.info("gpus", names=[card.name for card in self.cards], problem=self._probe()[1])
        every = wanted(workflows, self.cards, pinned=where.variants, on_cpu=where.on_cpu)
        for one in every:
            name, variant = one.workflow.name, one.workflow.variant or None
            if one.fits:
                log.info("models_wanted", workflow=name, variant=variant, reason=one.why)
            else:
                log.info("models_left_out", workflow=name, needs_gb=one.workflow.manifest.needs.vram_gb)
        return tuple(one for one in every if one.fits)

    def statuses(self, files: Sequence[ModelFile]) -> list[FileStatus]:
        """The state of each file, without reading it."""
        with disk_errors(self.store.root):
            return [self.store.status(file, self.hash_db) for file in files]

    def unused_files(self) -> tuple[UnusedFile, ...]:
        """The files that `prune` may delete. Blocks for the probe."""
        files = unused_files(self.library, kept=self._kept(), store=self.store, hash_db=self.hash_db)
        return (*files, *self._unnamed_loras())

    def _kept(self) -> Iterator[Workflow]:
        """The variants wanted of the enabled workflows, and those that a tuning chose; all of one that has not all
        files of the wanted, as it may render with others meanwhile, and where no card is found."""
        tuned = [choice.variants for choice in tuning.read(self.settings.state.dir).values()]
        for workflow in self.enabled:
            if not workflow.manifest.variants:
                yield workflow
                continue
            here = [one.workflow for one in self.wanted([workflow])]
            complete = all(status.state == "present" for status in self.statuses(files_of(here)))
            fastest = {variants.get(workflow.name) for variants in tuned}
            here += [one for one in workflow.variants if one.variant in fastest]
            yield from here if complete and self.cards else (workflow,)

    # ---- LoRAs ----------------------------------------------------------------------------------------------------

    def named_loras(self) -> tuple[ModelFile, ...]:
        """The files of `[loras]`."""
        return named_files(self.settings)

    def with_token(self, file: ModelFile) -> ModelFile:
        """A LoRA's file, with what Civitai asks for, if it is there."""
        token = self.settings.loras.civitai_token
        if not file.url.startswith("civitai:"):
            return file
        return replace(
            file,
            token=token.get_secret_value() if token else "",
            endpoint=self.settings.loras.civitai_endpoint,
        )

    def note_loras(self, report: Report) -> None:
        """Remember where the LoRAs of a pull came from, and which of them `[loras]` names."""
        named = {file.name for file in self.named_loras()}
        for status in report.done.values():
            if status.file.folder == FOLDER:
                origin = without_query(status.file.url)
                self.register.fetched(status.file.name, origin=origin, named=status.file.name in named)

    def lora_rows(self) -> list[LoraRow]:
        """Every LoRA on this machine, for `models list`: installed ones, then those that tasks named."""
        folders, known = self.store.folders, self.register.all()
        names = sorted(folders.lora_names())
        bases = folders.lora_bases(names)
        rows = []
        for name in names:
            found, facts = folders.find("loras", name), known.get(name, Registered())
            size = found.path.stat().st_size if found is not None and found.path.is_file() else None
            rows.append(LoraRow(name, bases.get(name, ""), size, facts.origin, facts.used_at))
        kept = kept_in(self.store.root)
        return [*rows, *(LoraRow("(on demand)", one.base, one.size, one.origin, one.used_at) for one in kept)]

    def forget_lora(self, path: Path) -> None:
        """The file was deleted."""
        if path.parent == self.store.root / FOLDER:
            self.register.forget(path.name)

    def _unnamed_loras(self) -> Iterator[UnusedFile]:
        """Those that `[loras]` named once, unchanged since their download."""
        named = {file.name for file in self.named_loras()}
        for name, facts in sorted(self.register.all().items()):
            path = self.store.root / FOLDER / name
            if facts.named and name not in named and self.hash_db.downloaded_hash(path):
                yield UnusedFile(path=path, size=path.stat().st_size, needed_by=("[loras]",))

    def require_room(self, statuses: Sequence[FileStatus]) -> None:
        """Raises MachineFault if the missing files do not fit on the disk."""
        keep_free = int(self.settings.miner.min_free_disk_gb * GIGABYTE)
        with disk_errors(self.store.root):
            require_room(statuses, keep_free=keep_free, freeable=sum(one.size for one in self.unused_files()))

    def pull(
        self,
        files: Sequence[ModelFile],
        *,
        progress: Progress,
        jobs: int = JOBS,
        replace: bool = False,
        max_bytes: int | None = None,
    ) -> Report:
        """See `miner.models.pull`."""
        return pull(
            files,
            store=self.store,
            hash_db=self.hash_db,
            progress=progress,
            stop=Stop(),
            jobs=jobs,
            replace=replace,
            max_bytes=max_bytes,
        )

    def verify(self, files: Sequence[ModelFile], *, progress: Progress, again: bool) -> Report:
        """See `miner.models.verify`. Blocks while files are read; raises KeyboardInterrupt, as `pull` does."""
        stop = Stop()

        def check(file: ModelFile) -> FileStatus:
            return verified(file, store=self.store, hash_db=self.hash_db, progress=progress, stop=stop, again=again)

        return in_parallel(check, files, jobs=JOBS, stop=stop)
