"""A partial download: `<name>.part` beside its target, locked by one process and thread at a time.

Promises: a file gets its final name only once it is complete, checked and on the disk. What was downloaded survives a
crash, with its origin in `<name>.part.json`. The lock is flock(2) on the .part file, which the kernel releases when a
process dies. Never: talks to a server.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from miner.models.digest import CHUNK, Digest
from miner.models.disk import disk_errors, sync_folder
from miner.models.progress import Stop, Stopped

_WRITE_BEHIND = 16 << 20  # bytes between two hints to write; without them the final fsync of gigabytes takes long
_LOCK_RETRY = 0.2  # seconds between two tries for the lock: flock cannot wait for `stop` too


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the bytes came from: tells later whether the rest can still be downloaded."""

    url: str  # without its query, which can hold a secret
    identity: str = ""  # the hub's hash of the whole content
    validator: str = ""  # the server's ETag or Last-Modified, as `If-Range` wants it


def partial_path(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def origin_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


class PartialFile:
    """For one thread at a time; create it with `locked_partial`. Raises MachineFault for disk errors."""

    def __init__(self, target: Path, file: IO[bytes]) -> None:
        self.target = target
        self.length = os.fstat(file.fileno()).st_size  # bytes
        self.origin = _read_origin(origin_path(target)) if self.length else None
        self.pieces = 1 if self.length else 0  # replies that it was assembled from
        self._file = file
        self._named = True  # whether the open file is still named .part
        self._digest = Digest()
        self._digested = 0  # bytes that were fed to the hash
        self._hinted = self.length  # bytes that the kernel was hinted to write

    @property
    def unhashed(self) -> int:
        """Bytes left by an earlier process that are not hashed yet."""
        return self.length - self._digested

    def restart(self, origin: Origin) -> None:
        """Discard the bytes; what is appended from now on is of `origin`."""
        with disk_errors(partial_path(self.target)):
            self._file.truncate(0)
            fresh = origin_path(self.target).with_suffix(".new")
            fresh.write_text(json.dumps(asdict(origin)), encoding="utf-8")
            fresh.replace(origin_path(self.target))
        self._digest.finish()
        self.length, self.origin, self.pieces = 0, origin, 1
        self._digest, self._digested, self._hinted = Digest(), 0, 0

    def append(self, chunk: bytes) -> None:
        self._digest.feed(chunk)
        with disk_errors(partial_path(self.target)):
            left = memoryview(chunk)
            while left:
                left = left[self._file.write(left) :]
        self.length += len(chunk)
        self._digested += len(chunk)
        if self.length - self._hinted >= _WRITE_BEHIND:
            # Linux starts writing the dirty pages of the range, without waiting
            os.posix_fadvise(self._file.fileno(), self._hinted, self.length - self._hinted, os.POSIX_FADV_DONTNEED)
            self._hinted = self.length

    def resume(self, *, stop: Stop, on_read: Callable[[int], None]) -> None:
        """Continue after the present bytes. Those that an earlier process left are hashed first.

        Calls `on_read` with the bytes hashed so far. Blocks while it reads them; raises Stopped.
        """
        self.pieces += 1
        with disk_errors(partial_path(self.target)):
            self._file.seek(self._digested)
            while self.unhashed and (chunk := self._file.read(CHUNK)):
                if stop.is_set():
                    raise Stopped
                self._digest.feed(chunk)
                self._digested += len(chunk)
                on_read(self._digested)

    def sha256(self) -> str:
        """The hash of the whole file, in hex; append nothing after it. Blocks until it is known."""
        return self._digest.finish()

    def commit(self) -> os.stat_result:
        """Sync it and give it its final name, replacing a file of that name atomically."""
        with disk_errors(self.target):
            os.fsync(self._file.fileno())
            partial_path(self.target).rename(self.target)
            sync_folder(self.target.parent)
            self._named = False
            origin_path(self.target).unlink(missing_ok=True)
            return os.fstat(self._file.fileno())

    def discard(self) -> None:
        """Delete it."""
        with disk_errors(partial_path(self.target)):
            partial_path(self.target).unlink(missing_ok=True)
            self._named = False
            origin_path(self.target).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock; the bytes stay."""
        self._digest.finish()
        try:
            if self._named and not self.length:
                self.discard()
        finally:
            self._file.close()


@contextmanager
def locked_partial(target: Path, *, stop: Stop, on_wait: Callable[[], None]) -> Iterator[PartialFile]:
    """The partial file of `target`, locked inside the `with`. While another holds it, calls `on_wait` once and blocks.

    Check the target again afterwards: the other may have completed it. Raises Stopped and MachineFault.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    partial = PartialFile(target, _locked(partial_path(target), stop, on_wait))
    try:
        yield partial
    finally:
        partial.close()


def is_locked(target: Path) -> bool:
    """Whether a process is downloading it now."""
    try:
        with partial_path(target).open("rb") as file:
            return not _try_lock(file)
    except FileNotFoundError:
        return False


def _locked(path: Path, stop: Stop, on_wait: Callable[[], None]) -> IO[bytes]:
    told = False
    while True:
        with disk_errors(path):
            file = path.open("a+b", buffering=0)
        try:
            with disk_errors(path):
                locked = _try_lock(file)
                if locked and _is_named(file, path):
                    return file
            if not locked and not told:
                on_wait()
                told = True
            if not locked:
                stop.wait(_LOCK_RETRY)
        except BaseException:
            file.close()
            raise
        file.close()


def _is_named(file: IO[bytes], path: Path) -> bool:
    """Whether `path` is still the opened file: its last holder may have renamed or deleted it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_origin(path: Path) -> Origin | None:
    """None where it is missing or invalid: a partial file of unknown origin is useless."""
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
