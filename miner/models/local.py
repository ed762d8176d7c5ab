"""The models of this machine, as the settings mean them: what every command works on, put together once."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import structlog

from miner.config import Settings
from miner.machine.gpu import probe_for
from miner.models.catalogue import GIGABYTE, Look, ModelFile, fitting
from miner.models.disk import disk_errors, require_room
from miner.models.hash_db import Records
from miner.models.progress import Stop, Watch
from miner.models.prune import Spare, spares
from miner.models.pull import JOBS, Report, pull, side_by_side
from miner.models.store import store_of
from miner.models.verify import verified
from miner.workflows import Library, Workflow

log = structlog.get_logger()


class Site:
    """Use it as a context, in one thread. Methods raise MachineFault for the disk's and the records' troubles."""

    def __init__(self, settings: Settings, library: Library) -> None:
        """Raises ConfigError where the settings name no models folder, or a workflow that is none."""
        self.settings = settings
        self.library = library
        self.store = store_of(settings)
        self.enabled = tuple(library.get(name) for name in settings.workflows.enabled)
        self.records = Records(settings.state.dir)

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.records.close()

    def workflows(self, names: Sequence[str] | None) -> tuple[Workflow, ...]:
        """Those of these names, or the enabled ones. Raises ConfigError."""
        return tuple(self.library.get(name) for name in names) if names else self.enabled

    def fitting(self, workflows: Sequence[Workflow]) -> tuple[Workflow, ...]:
        """Those of `workflows` that a GPU of this machine has memory for; the log says which do not fit.

        Blocks for the probe: seconds.
        """
        gpus = probe_for(self.settings)
        log.info("gpus", source=gpus.source, names=[gpu.name for gpu in gpus.gpus], problem=gpus.problem)
        fits = fitting(workflows, memory=max((gpu.memory_bytes for gpu in gpus.gpus), default=0))
        for workflow in workflows:
            if workflow not in fits:
                log.info("models_left_out", workflow=workflow.name, needs_gb=workflow.manifest.needs.vram_gb)
        return fits

    def looks(self, files: Sequence[ModelFile]) -> list[Look]:
        """How each file is on the disk, without reading it."""
        with disk_errors(self.store.root):
            return [self.store.look(file, self.records) for file in files]

    def spares(self) -> tuple[Spare, ...]:
        """What `prune` may delete."""
        enabled = [workflow.name for workflow in self.enabled]
        return spares(self.library, enabled=enabled, store=self.store, records=self.records)

    def require_room(self, looks: Sequence[Look]) -> None:
        """Raises MachineFault if what `looks` lack has no room on the disk."""
        keep_free = int(self.settings.miner.min_free_disk_gb * GIGABYTE)
        with disk_errors(self.store.root):
            require_room(looks, keep_free=keep_free, freeable=sum(one.size for one in self.spares()))

    def pull(
        self,
        files: Sequence[ModelFile],
        *,
        watch: Watch,
        jobs: int = JOBS,
        replace: bool = False,
        most: int | None = None,
    ) -> Report:
        """See `miner.models.pull`."""
        return pull(
            files,
            store=self.store,
            records=self.records,
            watch=watch,
            stop=Stop(),
            jobs=jobs,
            replace=replace,
            most=most,
        )

    def verify(self, files: Sequence[ModelFile], *, watch: Watch, again: bool) -> Report:
        """See `miner.models.verify`. Blocks while files are read; raises KeyboardInterrupt as `pull` does."""
        stop = Stop()

        def check(file: ModelFile) -> Look:
            return verified(file, store=self.store, records=self.records, watch=watch, stop=stop, again=again)

        return side_by_side(check, files, jobs=JOBS, stop=stop)
