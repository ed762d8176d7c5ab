"""SIGTERM, SIGINT and SIGHUP, heard by a thread of their own.

Python runs a signal's handler in the main thread, between two of its steps: a main thread that hangs delays it for
ever, and one that is interrupted may hold any lock. So the handlers do nothing. The interpreter writes each signal's
number into a socket (`signal.set_wakeup_fd`), from which the thread reads.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def listen(heard: Callable[[int], None]) -> None:
    """From now on, call `heard` with the number of each signal, in the thread. Call once, from the main thread."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    threading.Thread(target=_run, args=(reader, heard), name="signals", daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, lambda _number, _frame: None)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)


def _run(reader: socket.socket, heard: Callable[[int], None]) -> None:
    while numbers := reader.recv(64):
        for number in numbers:
            if number in SIGNALS:
                heard(number)
