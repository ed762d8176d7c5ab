"""The TCP connection under a request: whether its client is still there, and how to end it rudely.

uvicorn shows an application no socket, so its protocol class is extended to put one into the request's state. It
promises that a reset is a real one: the client reads ECONNRESET, and not an orderly end.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct

from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_LINGER_NOT = struct.pack("ii", 1, 0)  # on, 0 s: closing sends RST (socket(7))
_GONE = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)  # POLLRDHUP is Linux's


class Connection:
    """One client's connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def gone(self) -> bool:
        """Whether the client closed, as far as this machine was told.

        It asks the kernel, since the event loop may have the news still before it.
        """
        if self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _GONE)
        return bool(poll.poll(0))

    async def close(self, receive: Receive) -> None:
        """End it without a reply, in order (FIN)."""
        self._transport.close()
        await _wait_until_lost(receive)

    async def reset(self, receive: Receive) -> None:
        """End it without a reply, by a reset (RST)."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()
        await _wait_until_lost(receive)


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


async def _wait_until_lost(receive: Receive) -> None:
    """uvicorn sends a 500 for an application that returns without a reply, unless it saw the connection end."""
    while (await receive())["type"] != "http.disconnect":
        pass
