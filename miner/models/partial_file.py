"""A file on its way: `<name>.part` beside its target, held by one process and thread at a time.

Promises: a file has its final name only once it is whole, checked and on the disk; and what was fetched outlives a
crash, with a note (`<name>.part.json`) of what it is a part of. The lock is flock(2) on the .part file itself, which
the kernel lets go when a process dies. Never: talks to a server.
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

_WRITE_BEHIND = 16 << 20  # bytes between two hints to write; without, a last fsync of gigabytes takes long
_LOOK_AGAIN = 0.2  # seconds between two tries for a lock: flock cannot wait for an event of ours as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the bytes are a part of: enough to tell later whether the rest can still be had."""

    url: str  # without its query, which can be a secret
    identity: str = ""  # the hub's hash of the whole content
    validator: str = ""  # the server's ETag or Last-Modified, as `If-Range` wants it


def partial_path(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def origin_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


class PartialFile:
    """One thread at a time; get it from `held_part`. Raises MachineFault for the disk's troubles."""

    def __init__(self, target: Path, file: IO[bytes]) -> None:
        self.target = target
        self.length = os.fstat(file.fileno()).st_size  # bytes
        self.origin = _read_note(origin_path(target)) if self.length else None
        self.pieces = 1 if self.length else 0  # answers that it was put together from
        self._file = file
        self._named = True  # whether .part is the name of what we hold
        self._digest = Digest()
        self._digested = 0  # bytes that the hash has seen
        self._hinted = self.length  # bytes that the kernel was told to write

    @property
    def unread(self) -> int:
        """Bytes that an earlier process left, and that are not hashed yet."""
        return self.length - self._digested

    def begin(self, origin: Origin) -> None:
        """Throw away what is there; what is appended from now on is of `origin`."""
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
            # Linux begins to write the dirty pages of the range, and waits for none of them
            os.posix_fadvise(self._file.fileno(), self._hinted, self.length - self._hinted, os.POSIX_FADV_DONTNEED)
            self._hinted = self.length

    def recall(self, *, stop: Stop, at: Callable[[int], None]) -> None:
        """Go on where it ended. What an earlier process left is hashed now, once; `append` keeps up from then on.

        `at` is told the bytes hashed so far. Blocks for the reading of the disk; raises Stopped.
        """
        self.pieces += 1
        with disk_errors(partial_path(self.target)):
            self._file.seek(self._digested)
            while self.unread and (chunk := self._file.read(CHUNK)):
                if stop.is_set():
                    raise Stopped
                self._digest.feed(chunk)
                self._digested += len(chunk)
                at(self._digested)

    def sha256(self) -> str:
        """The hash of all of it, in hex; nothing may be appended after. Blocks until it is known."""
        return self._digest.finish()

    def commit(self) -> os.stat_result:
        """Give it its final name, on the disk for good. What had that name before is replaced at once."""
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
        """Let go of it; what was fetched stays."""
        self._digest.finish()
        try:
            if self._named and not self.length:
                self.discard()
        finally:
            self._file.close()


@contextmanager
def locked_partial(target: Path, *, stop: Stop, on_wait: Callable[[], None]) -> Iterator[PartialFile]:
    """The part of `target`, ours alone inside the `with`. Blocks while somebody else has it, and calls `waits` first.

    Look at the target again: who had it may have finished. Raises Stopped and MachineFault.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    partial = PartialFile(target, _locked(partial_path(target), stop, on_wait))
    try:
        yield partial
    finally:
        partial.close()


def is_locked(target: Path) -> bool:
    """Whether somebody downloads it now."""
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
                stop.wait(_LOOK_AGAIN)
        except BaseException:
            file.close()
            raise
        file.close()


def _is_named(file: IO[bytes], path: Path) -> bool:
    """Whether `path` is still what was opened: who held it before may have renamed or deleted it."""
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


def _read_note(path: Path) -> Origin | None:
    """None where there is none, or it makes no sense: then the part is of unknown origin, and of no use."""
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
