"""Many files at once, each once.

Promises: what is there is left alone; a file that this miner did not download is never replaced unless asked; of two
pulls at once, one downloads a file and the other waits and finds it. One file's failure is its own: the rest go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from dataclasses import replace as changed

from miner.models import safetensors
from miner.models.catalogue import Look, ModelFile
from miner.models.disk import disk_errors
from miner.models.download import Download, Patience
from miner.models.hash_db import Records
from miner.models.locate import locate_at
from miner.models.partial_file import Part, held_part, part_of
from miner.models.progress import Stop, Stopped, Watch
from miner.models.store import Store
from miner.task.errors import MachineFault, MinerError

PATIENCE = Patience()
JOBS = 4  # files at once: one connection seldom fills a line, and more of them fill memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How it went, file by file, by their places."""

    done: Mapping[str, Look] = field(default_factory=dict)
    failed: Mapping[str, MinerError] = field(default_factory=dict)


def pull(
    files: Sequence[ModelFile],
    *,
    store: Store,
    records: Records,
    watch: Watch,
    stop: Stop,
    jobs: int = JOBS,
    replace: bool = False,
    most: int | None = None,
    patience: Patience = PATIENCE,
) -> Report:
    """Bring every file that is not there. Blocks until each is there or has failed.

    `replace`: also over a file of that name that this miner did not download, or of which nothing is known. `most`
    bytes are taken of a file of unknown size. Raises Stopped once `stop` is set, and KeyboardInterrupt, when every
    thread has ended.
    """
    one = _Pull(store=store, records=records, watch=watch, stop=stop, replace=replace, most=most, patience=patience)
    return side_by_side(one.bring, files, jobs=jobs, stop=stop)


def side_by_side(work: Callable[[ModelFile], Look], files: Iterable[ModelFile], *, jobs: int, stop: Stop) -> Report:
    """`work` for each file, `jobs` at a time; a MinerError is that file's own. Raises Stopped and KeyboardInterrupt."""
    done: dict[str, Look] = {}
    failed: dict[str, MinerError] = {}
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="models") as pool:
        under_way = {pool.submit(work, file): file.place for file in files}
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
    """What all files of one pull share."""

    store: Store
    records: Records
    watch: Watch
    stop: Stop
    replace: bool
    most: int | None
    patience: Patience

    def bring(self, file: ModelFile) -> Look:
        """The file, there. Raises MachineFault and Stopped."""
        if (look := self._look(file)).state == "there":
            return look
        target = self.store.target(file)
        with held_part(target, stop=self.stop, waits=lambda: self._wait_told(file)) as part:
            if (look := self._look(file)).state == "there":  # whoever held it has finished
                part.discard()
                return look
            sha256 = self._download(file, part)
            stat = part.commit()
        self.records.downloaded(target, stat, sha256)
        return self.store.look(file, self.records)

    def _look(self, file: ModelFile) -> Look:
        with disk_errors(self.store.target(file)):
            look = self.store.look(file, self.records)
        if look.state == "there" and self.replace and not (file.size or file.sha256):
            return changed(look, state="differs")  # nothing tells whether it is the one
        ours = look.state == "differs" and self.records.downloaded_hash(look.path)
        if look.state == "differs" and not (ours or self.replace):
            raise MachineFault(
                f"{file.place}: another file is there: {look.why}",
                hint=f"move {look.path} away, or say --replace; it was not downloaded by this program",
            )
        return look

    def _download(self, file: ModelFile, part: Part) -> str:
        download = Download(
            file,
            part,
            locate_at(file),
            stop=self.stop,
            watch=self.watch,
            patience=self.patience,
            most=self.most,
        )
        sha256 = download.run()
        if file.name.endswith(".safetensors"):
            with disk_errors(part_of(part.target)):
                flaw = safetensors.flaw_of(part_of(part.target))
            if flaw:
                part.discard()
                raise MachineFault(f"{file.place}: what its URL gives {flaw}", hint="open the URL in a browser")
        return sha256

    def _wait_told(self, file: ModelFile) -> None:
        self.watch.says(file.place, "waits for another download of it")
