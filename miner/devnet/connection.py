"""The TCP connection under a request: whether its client is still there.

uvicorn shows an application no socket, so its protocol class is extended to put one into the request's state.
"""

from __future__ import annotations

import asyncio
import select
import socket

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_GONE = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)  # POLLRDHUP is Linux's


class Connection:
    """One client's connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def gone(self) -> bool:
        """Whether the client closed, as far as this machine knows.

        It asks the kernel, since the event loop may have the news still before it.
        """
        if self.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), _GONE)
        return bool(poll.poll(0))


class ConnectionProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with the Connection in each request's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        # asyncio does it only for a socket that names its protocol. Without it a reply waits 40 ms for an ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "connection": Connection(transport)}
        super().connection_made(transport)


def connection_of(scope: Scope) -> Connection:
    """The connection that a request came by."""
    connection: Connection = scope["state"]["connection"]
    return connection
