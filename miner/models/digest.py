"""SHA-256 in a thread of its own, so that hashing does not slow a download.

Promises: at most QUEUED chunks wait in memory.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from miner.models.progress import Stop, Stopped

CHUNK = 1 << 20  # bytes read at a time
QUEUED = 4  # chunks that may wait for the hash; most of a download's memory


class Digest:
    """Call `feed` and `finish` from one thread. Always call `finish`: it ends the hash's thread."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._chunks: queue.Queue[bytes] = queue.Queue(QUEUED)
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
        self._thread.start()

    def feed(self, chunk: bytes) -> None:
        """Add the next bytes, not empty. Blocks while QUEUED chunks wait."""
        self._chunks.put(chunk)

    def finish(self) -> str:
        """The hash of everything that was fed, in hex. Blocks until it is known; may be called again."""
        if self._thread.is_alive():
            self._chunks.put(b"")
            self._thread.join()
        return self._hash.hexdigest()

    def _run(self) -> None:
        while chunk := self._chunks.get():
            self._hash.update(chunk)


def sha256_of(path: Path, *, stop: Stop, on_read: Callable[[int], None]) -> str:
    """The hash of a file, in hex. Calls `on_read` with the bytes read so far. Blocks; raises OSError and Stopped."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            if stop.is_set():
                raise Stopped
            digest.update(chunk)
            done += len(chunk)
            on_read(done)
    return digest.hexdigest()
