"""Downloads many files in parallel.

Promises: present files are left alone; a file that this miner did not download is replaced only on request; of two
pulls at once, one downloads a file and the other waits for it. A file that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from dataclasses import replace as changed

from miner.models.catalogue import FileStatus, ModelFile
from miner.models.disk import disk_errors
from miner.models.download import Download, RetryPolicy
from miner.models.flaws import flaw_of
from miner.models.hash_db import HashDatabase
from miner.models.locate import locate_at
from miner.models.partial_file import PartialFile, locked_partial, partial_path
from miner.models.progress import Progress, Stop, Stopped
from miner.models.source import account_hint, without_query
from miner.models.store import Store
from miner.task.errors import MachineFault, MinerError

RETRY = RetryPolicy()
JOBS = 4  # parallel downloads: one connection seldom fills the line, and more of them fill memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of each file, by its relative path."""

    done: Mapping[str, FileStatus] = field(default_factory=dict)
    failed: Mapping[str, MinerError] = field(default_factory=dict)


def pull(
    files: Sequence[ModelFile],
    *,
    store: Store,
    hash_db: HashDatabase,
    progress: Progress,
    stop: Stop,
    jobs: int = JOBS,
    replace: bool = False,
    max_bytes: int | None = None,
    retry: RetryPolicy = RETRY,
) -> Report:
    """Download every missing file. Blocks until each is present or has failed.

    `replace`: overwrite a file that this miner did not download or whose size and hash are unknown. `max_bytes`: limit
    for a file of unknown size. Raises Stopped once `stop` is set, and KeyboardInterrupt, after every thread has ended.
    """
    one = _Pull(
        store=store, hash_db=hash_db, progress=progress, stop=stop, replace=replace, max_bytes=max_bytes, retry=retry
    )
    return in_parallel(one.fetch, files, jobs=jobs, stop=stop)


def in_parallel(
    work: Callable[[ModelFile], FileStatus], files: Iterable[ModelFile], *, jobs: int, stop: Stop
) -> Report:
    """Run `work` on each file, `jobs` at a time; a MinerError fails one file. Raises Stopped and KeyboardInterrupt."""
    done: dict[str, FileStatus] = {}
    failed: dict[str, MinerError] = {}
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="models") as pool:
        under_way = {pool.submit(work, file): file.relative_path for file in files}
        try:
            for future in as_completed(under_way):
                try:
                    done[under_way[future]] = future.result()
                except Stopped:
                    raise
                except MinerError as error:
                    failed[under_way[future]] = error
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Report(done=done, failed=failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pull:
    """What the files of one pull share."""

    store: Store
    hash_db: HashDatabase
    progress: Progress
    stop: Stop
    replace: bool
    max_bytes: int | None
    retry: RetryPolicy

    def fetch(self, file: ModelFile) -> FileStatus:
        """Download the file if it is missing. Raises MachineFault and Stopped."""
        if (status := self._status(file)).state == "present":
            return status
        target = self.store.target(file)
        with locked_partial(target, stop=self.stop, on_wait=lambda: self._waiting(file)) as partial:
            if (status := self._status(file)).state == "present":  # the other download has finished
                partial.discard()
                return status
            sha256 = self._download(file, partial)
            stat = partial.commit()
        self.hash_db.add_download(target, stat, sha256)
        return self.store.status(file, self.hash_db)

    def _status(self, file: ModelFile) -> FileStatus:
        with disk_errors(self.store.target(file)):
            status = self.store.status(file, self.hash_db)
        if status.state == "present" and self.replace and not (file.size or file.sha256):
            return changed(status, state="differs")  # unknown whether it is the right one
        if status.state in ("differs", "broken"):
            ours, here = self.hash_db.downloaded_hash(status.path), status.path == self.store.target(file)
            if not here or not (ours or self.replace):
                what = " is broken" if status.state == "broken" else ": another file has this name"
                ways = "move {} away or use --replace" if here else "move {}, which ComfyUI finds first, away"
                hint = f"{ways.format(status.path)}; xalora-miner did not download it"
                raise MachineFault(f"{file.relative_path}{what}: {status.reason}", hint=hint)
        return status

    def _download(self, file: ModelFile, partial: PartialFile) -> str:
        download = Download(
            file,
            partial,
            locate_at(file),
            stop=self.stop,
            progress=self.progress,
            retry=self.retry,
            max_bytes=self.max_bytes,
        )
        sha256 = download.run()
        if flaw := flaw_of(partial_path(partial.target), size=file.size, name=file.name):
            partial.discard()
            says = f"{file.relative_path}: the file at {without_query(file.url)} {flaw}"
            raise MachineFault(says, hint=account_hint(file.url))
        return sha256

    def _waiting(self, file: ModelFile) -> None:
        self.progress.message(file.relative_path, "waiting for another download of it")
