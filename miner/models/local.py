"""The models of this machine, by the settings: what every `models` command works on."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from miner.config import Settings
from miner.machine.gpu import probe_for
from miner.models.catalogue import FileStatus, ModelFile, fitting
from miner.models.disk import disk_errors, require_room
from miner.models.hash_db import HashDatabase
from miner.models.progress import Progress, Stop
from miner.models.prune import UnusedFile, unused_files
from miner.models.pull import JOBS, Report, in_parallel, pull
from miner.models.store import store_of
from miner.models.verify import verified
from miner.telemetry.sizes import GIGABYTE
from miner.workflows import Library, Workflow

log = structlog.get_logger()


class LocalModels:
    """A context manager, for one thread. Methods raise MachineFault for errors of the disk and the hash database."""

    def __init__(self, settings: Settings, library: Library) -> None:
        """Raises ConfigError if the settings lack a models folder or name an unknown workflow."""
        self.settings = settings
        self.library = library
        self.store = store_of(settings)
        self.enabled = tuple(library.get(name) for name in settings.workflows.enabled)
        self.hash_db = HashDatabase(settings.state.dir)

    def __enter__(self) -> LocalModels:
        return self

    def __exit__(self, *_: object) -> None:
        self.hash_db.close()

    def workflows(self, names: Sequence[str] | None) -> tuple[Workflow, ...]:
        """The workflows of these names, else the enabled ones. Raises ConfigError."""
        return tuple(self.library.get(name) for name in names) if names else self.enabled

    def fitting(self, workflows: Sequence[Workflow]) -> tuple[Workflow, ...]:
        """The workflows that fit a GPU of this machine; the others are logged. Blocks for the probe: seconds."""
        gpus = probe_for(self.settings)
        log.info("gpus", source=gpus.source, names=[gpu.name for gpu in gpus.gpus], problem=gpus.problem)
        memory = max((gpu.memory_bytes for gpu in gpus.gpus), default=0)
        fits = fitting(workflows, memory=memory, on_cpu=self.settings.workflows.on_cpu)
        for workflow in workflows:
            if workflow not in fits:
                log.info("models_left_out", workflow=workflow.name, needs_gb=workflow.manifest.needs.vram_gb)
        return fits

    def statuses(self, files: Sequence[ModelFile]) -> list[FileStatus]:
        """The state of each file, without reading it."""
        with disk_errors(self.store.root):
            return [self.store.status(file, self.hash_db) for file in files]

    def unused_files(self) -> tuple[UnusedFile, ...]:
        """The files that `prune` may delete."""
        enabled = [workflow.name for workflow in self.enabled]
        return unused_files(self.library, enabled=enabled, store=self.store, hash_db=self.hash_db)

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
