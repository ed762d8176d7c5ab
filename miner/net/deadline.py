"""A time limit that holds whatever the other side does.

Promises: once a `Deadline` has passed, no socket that it watches blocks a thread. Never: stops a computation.
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
    """Limits everything inside its `with`: when it has passed, the sockets used there are shut down.

    A socket's own time-out restarts with every byte, so a slow trickle never ends; this one does not.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ends = time.monotonic() + seconds
        self.over = False  # it was cut
        self._lock = threading.Lock()
        self._twins: list[socket.socket] = []  # duplicates, since TLS detaches the original descriptor

    @property
    def left(self) -> float:
        """Seconds, always above 0: a time-out of 0 means non-blocking."""
        return max(self.ends - time.monotonic(), 0.001)

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.ends

    def watch(self, sock: socket.socket) -> None:
        sock.settimeout(self.left)
        with self._lock:
            self._twins.append(socket.socket(fileno=os.dup(sock.fileno())))
        if self.over or self.expired:
            self.cut()

    def cut(self) -> None:
        """Shut down all sockets, now and those watched later, even before the time is up. Any thread may call it."""
        with self._lock:
            self.over = True
            for twin in self._twins:
                with suppress(OSError):  # it is already disconnected
                    twin.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Deadline:
        self._token = _in_force.set(self)
        _watchdog.watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _watchdog.forget(self)
        with self._lock:
            for twin in self._twins:
                twin.close()
            self._twins.clear()
        _in_force.reset(self._token)


class _Watchdog:
    """Cuts expired deadlines in one thread: a timer for each would add a millisecond to every request."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._live: set[Deadline] = set()
        self._wakes = float("inf")  # monotonic time of its next check
        self._thread: threading.Thread | None = None

    def watch(self, deadline: Deadline) -> None:
        with self._changed:
            self._live.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif deadline.ends < self._wakes:
                self._changed.notify()

    def forget(self, deadline: Deadline) -> None:
        with self._changed:
            self._live.discard(deadline)

    def _run(self) -> None:
        with self._changed:
            while True:
                for deadline in [one for one in self._live if one.expired]:
                    self._live.discard(deadline)
                    deadline.cut()
                self._wakes = min((one.ends for one in self._live), default=float("inf"))
                self._changed.wait(max(self._wakes - time.monotonic(), 0.0) if self._live else None)


_watchdog = _Watchdog()
_in_force: ContextVar[Deadline] = ContextVar("deadline")


def in_force() -> Deadline:
    """This thread's innermost deadline. Raises LookupError if there is none."""
    return _in_force.get()
