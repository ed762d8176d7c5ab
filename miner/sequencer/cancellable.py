"""Connections to the sequencer that can be cut: by a deadline, and held requests (`Prefer: wait`) by a drain too.

urllib3 has no way to cancel a request that waits for its reply, and its time-out starts again with every byte;
shutting the socket down ends both.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import Any

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from miner.net.deadline import in_force


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

    def shut(self, *, for_good: bool = True) -> None:
        """Shut those that are open; `for_good`: and any that opens later."""
        with self._mutex:
            self._shut = self._shut or for_good
            for connection in self._open:
                _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class WatchedPools(urllib3.PoolManager):
    """Kept connections that the deadline in force can cut; `sockets` is told of each that is opened."""

    def __init__(self, sockets: Sockets | None = None) -> None:
        super().__init__(ca_certs=DEFAULT_CA_BUNDLE_PATH)

        def watched(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):  # type: ignore[misc]  # a class made for one pool class
                def connect(self) -> None:
                    super().connect()
                    in_force().watch(self.sock)
                    if sockets is not None:
                        sockets.add(self.sock)

                def request(self, *args: Any, **kwargs: Any) -> None:
                    if self.sock is not None:
                        in_force().watch(self.sock)
                    super().request(*args, **kwargs)

            return type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": Connection})

        self.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in self.pool_classes_by_scheme.items()}
