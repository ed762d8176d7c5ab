"""Time limits that hold whatever the other side does.

Promises: once a `Deadline` has passed, no socket that it watches blocks a thread. A slow transfer is not a late one:
bytes that arrive extend a `Deadline` (`grant`), and a `Standstill` only ends what no longer moves. Never: stops a
computation.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType


class Deadline:
    """Limits everything inside its `with`: when it has passed, the sockets used there are shut down.

    A socket's own time-out restarts with every byte, so a slow trickle never ends; this one does not. `longest`:
    seconds in all, however much is granted.
    """

    def __init__(self, seconds: float, *, longest: float | None = None) -> None:
        self.seconds = seconds  # granted so far
        self._began = time.monotonic()
        self._longest = max(longest or seconds, seconds)
        self.over = False  # it was cut
        self.sent = 0  # bytes of a body, by whoever sends it
        self._lock = threading.Lock()
        self._twins: list[socket.socket] = []  # duplicates, since TLS detaches the original descriptor

    def grant(self, seconds: float) -> None:
        """More time, since something arrived."""
        self.seconds = min(self.seconds + seconds, self._longest)

    @property
    def ends(self) -> float:
        """Monotonic time."""
        return self._began + self.seconds

    @property
    def left(self) -> float:
        """Seconds, always above 0: a time-out of 0 means non-blocking."""
        return max(self.ends - time.monotonic(), 0.001)

    @property
    def patience(self) -> float:
        """Seconds for a step that moves no bytes, such as a look-up."""
        return self.left

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.ends

    @property
    def why(self) -> str:
        """What the other side did not do, as a clause without its subject."""
        return f"sent no whole answer within {_shown(self.seconds)} s"

    @property
    def next_look(self) -> float:
        """Monotonic time at which `is_due` may turn true."""
        return self.ends

    def is_due(self) -> bool:
        """Whether it has to be cut now. Called by the watchdog alone."""
        return self.expired

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


def _shown(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


class Standstill(Deadline):
    """Limits how long a transfer may stand still; `longest` limits it in all. Both are in seconds.

    A byte counts as moved when the other side's TCP has taken it, as the kernel tells, and not when it is buffered
    here.
    """

    LOOKS = 4  # for movement, in the time that is allowed without any

    def __init__(self, seconds: float, *, longest: float) -> None:
        super().__init__(max(longest, 0.001))
        self._still = min(seconds, self.seconds)
        self._moved_at = self._looked_at = self._began
        self._position: object = ()
        self._stood = False

    @property
    def patience(self) -> float:
        return min(self._still, self.left)

    @property
    def expired(self) -> bool:
        return self._stood or super().expired

    @property
    def why(self) -> str:
        if self._stood:
            return f"neither took nor sent anything for {_shown(self._still)} s"
        return f"did not take everything within {_shown(self.seconds)} s"

    @property
    def next_look(self) -> float:
        return min(self.ends, self._looked_at + self._still / self.LOOKS)

    def is_due(self) -> bool:
        now, position = time.monotonic(), self._where()
        self._looked_at = now
        if position != self._position:
            self._position, self._moved_at = position, now
        self._stood = now - self._moved_at >= self._still
        return self.expired

    def _where(self) -> object:
        """Changes when a byte moves: what was handed to each socket, less what its peer has not taken."""
        with self._lock:
            return self.sent, tuple(map(_unsent, self._twins))


def _unsent(sock: socket.socket) -> int:
    """Bytes that the peer has not acknowledged; 0 where the system does not tell."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:
        return 0


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
            elif deadline.next_look < self._wakes:
                self._changed.notify()

    def forget(self, deadline: Deadline) -> None:
        with self._changed:
            self._live.discard(deadline)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for deadline in [one for one in self._live if one.next_look <= now and one.is_due()]:
                    self._live.discard(deadline)
                    deadline.cut()
                self._wakes = min((one.next_look for one in self._live), default=float("inf"))
                self._changed.wait(max(self._wakes - time.monotonic(), 0.0) if self._live else None)


_watchdog = _Watchdog()
_in_force: ContextVar[Deadline] = ContextVar("deadline")


def in_force() -> Deadline:
    """This thread's innermost deadline. Raises LookupError if there is none."""
    return _in_force.get()
