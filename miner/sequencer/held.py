"""Requests that the sequencer holds open (`Prefer: wait`), and how to end them from another thread.

requests has no way to cancel a request that waits for its reply; shutting its socket down is one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import Any

from requests.adapters import HTTPAdapter


class Sockets:
    """The sockets of held requests, so that they can be shut from another thread."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._mutex = threading.Lock()
        self._shut = False

    def add(self, connection: socket.socket) -> None:
        with self._mutex:
            self._open.add(connection)
            if self._shut:
                _shut_down(connection)

    def shut(self) -> None:
        with self._mutex:
            self._shut = True
            for connection in self._open:
                _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class WatchedAdapter(HTTPAdapter):
    """Tells `sockets` of every connection that it opens."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        sockets = self._sockets

        def watched(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):  # type: ignore[misc]  # a class made for one pool class
                def connect(self) -> None:
                    super().connect()
                    sockets.add(self.sock)

            return type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": Connection})

        self.poolmanager.pool_classes_by_scheme = {
            scheme: watched(pool) for scheme, pool in self.poolmanager.pool_classes_by_scheme.items()
        }
