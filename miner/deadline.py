"""A limit on time that holds whatever the other side does.

Promises: once a `Deadline` is up, no socket that it watches keeps a thread waiting. Never: stops a computation.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType


class Deadline:
    """A limit on everything that happens inside its `with`: when it is up, the sockets opened there are shut down.

    A socket's own time-out starts again with every byte, so that a trickle never ends; this does not.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._twins: list[socket.socket] = []  # duplicates: TLS takes the first descriptor away from its object
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    @property
    def left(self) -> float:
        """Seconds, a little more than none, for a time-out of 0 means something else."""
        return max(self._ends - time.monotonic(), 0.001)

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self._ends

    def watch(self, sock: socket.socket) -> None:
        sock.settimeout(self.left)
        with self._lock:
            self._twins.append(socket.socket(fileno=os.dup(sock.fileno())))
        if self.expired:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for twin in self._twins:
                with suppress(OSError):  # it was not connected any more
                    twin.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Deadline:
        self._token = _in_force.set(self)
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        for twin in self._twins:
            twin.close()
        _in_force.reset(self._token)


_in_force: ContextVar[Deadline] = ContextVar("deadline")


def in_force() -> Deadline:
    """The innermost deadline of this thread. Raises LookupError outside of any."""
    return _in_force.get()
