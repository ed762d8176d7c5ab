"""A file as a request's body, read while it is sent, never held in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import IO

from miner.net.deadline import in_force
from miner.task.errors import MachineFault

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far, and the bytes in all."""


_BLOCK = 1 << 18  # bytes


class Body:
    """The file itself, of the announced size in bytes. Reads inside a `Deadline`; raises MachineFault while it does."""

    def __init__(self, file: IO[bytes], size: int, progress: Progress | None) -> None:
        self._file = file
        self._size = size
        self._read = 0
        self._progress = progress or (lambda _sent, _size: None)

    def __len__(self) -> int:
        return self._size

    def part(self, start: int, size: int) -> Body:
        """Bytes of it as a body of their own, whose progress is the whole's. Only the newest part can be read."""
        self._file.seek(start)
        return Body(self._file, size, lambda sent, _size: self._progress(start + sent, self._size))

    def read(self, size: int) -> bytes:
        block = self._block(size)
        in_force().sent += len(block)
        self._progress(self._read, self._size)
        return block

    def _block(self, size: int) -> bytes:
        try:
            block = self._file.read(min(size, self._size - self._read))
        except OSError as error:
            raise MachineFault(f"the output file cannot be read: {error.strerror}") from error
        if not block and self._read < self._size:
            raise MachineFault("the output file became shorter while it was uploaded")
        self._read += len(block)
        return block


class Base64Body(Body):
    """`{"filename": …, "file": "<the file in base64>"}`, encoded while it is read."""

    def __init__(self, file: IO[bytes], size: int, progress: Progress | None, *, filename: str) -> None:
        super().__init__(file, size, progress)
        self._head = f'{{"filename": {json.dumps(filename)}, "file": "'.encode()
        self._tail = b'"}'
        self._part = 0

    def __len__(self) -> int:
        return len(self._head) + 4 * -(-self._size // 3) + len(self._tail)

    def sha256(self) -> str:
        """Of all of it, in hex: reads the file once, and leaves it at its start."""
        digest, told = hashlib.sha256(), self._progress
        self._progress = lambda _sent, _size: None
        while block := self.read(_BLOCK):
            digest.update(block)
        self._file.seek(0)
        self._read, self._part, self._progress = 0, 0, told
        return digest.hexdigest()

    def read(self, size: int) -> bytes:
        """A block of about `size` bytes: three of the file become four of it."""
        if self._part == 0:
            self._part = 1
            return self._head
        if self._part == 1:
            wanted, raw = max(size // 4, 1) * 3, b""
            while len(raw) < wanted and (block := super().read(wanted - len(raw))):
                raw += block
            if raw:
                return base64.b64encode(raw)
            self._part = 2
            return self._tail
        return b""
