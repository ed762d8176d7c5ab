"""Carries faults out: an ASGI layer between the sockets and the application.

A request without a rule passes untouched and unbuffered.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miner.devnet.connection import Connection, connection_of
from tests.support.devnet.faults import Faults, Rule
from tests.support.devnet.routes import route_of

_LINGER_NOT = struct.pack("ii", 1, 0)  # on, 0 s: closing sends RST (socket(7))
_GLANCE = 0.05
"""Seconds between two looks at whether a client that gets no answer went away."""


@dataclass(slots=True)
class _Reply:
    """A reply that is held back."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        else:
            self.body += message.get("body", b"")

    async def start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})


class Tampering:
    """The layer. What it holds up is let go when `stopping` is set."""

    def __init__(self, app: ASGIApp, *, faults: Faults, stopping: asyncio.Event) -> None:
        self._app = app
        self._faults = faults
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = route_of(scope["method"], scope["path"]) if scope["type"] == "http" else ""
        rule = self._faults.take(route)
        if rule is None:
            await self._app(scope, receive, send)
            return
        scope["state"]["fault"] = rule.action
        reply = _Reply()
        if rule.after:
            await self._app(scope, receive, reply.take)
        await self._spoil(rule, reply, scope, receive, send)
        if rule.action == "latency":
            await self._app(scope, receive, send)

    async def _spoil(self, rule: Rule, reply: _Reply, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        match rule.action:
            case "fail":
                told = JSONResponse({"message": "a fault that was asked for"}, rule.status, headers=rule.headers)
                await told(scope, receive, send)
            case "garbage":
                await Response("<html>502 Bad Gateway</html>", media_type="text/html")(scope, receive, send)
            case "latency":
                await self._pause(connection, rule.seconds)
            case "hang":
                await _swallow(receive, rule.bytes or 0)
                await self._pause(connection, rule.seconds)
                await _close(connection, receive)
            case "reset":
                await _reset(connection, receive)
            case "cut":
                length = int(Headers(scope=scope).get("content-length", "0"))
                await _swallow(receive, length // 2 if rule.bytes is None else rule.bytes)
                await _reset(connection, receive)
            case "drop_reply":
                await _close(connection, receive)
            case "truncate":
                end = len(reply.body) // 2 if rule.bytes is None else rule.bytes
                await reply.start(send)
                await send({"type": "http.response.body", "body": bytes(reply.body[:end]), "more_body": True})
                await _close(connection, receive)

    async def _pause(self, connection: Connection, seconds: float | None) -> None:
        """Wait; for ever where `seconds` is None. It ends early when the client goes away or the devnet stops."""
        loop, stopping = asyncio.get_running_loop(), self._stopping
        end = loop.time() + (math.inf if seconds is None else seconds)
        while not (stopping.is_set() or connection.gone()) and (left := end - loop.time()) > 0:
            try:
                await asyncio.wait_for(stopping.wait(), min(left, _GLANCE))
            except TimeoutError:
                continue


async def _close(connection: Connection, receive: Receive) -> None:
    """End the connection without a reply, in order (FIN)."""
    connection.transport.close()
    await _wait_until_lost(receive)


async def _reset(connection: Connection, receive: Receive) -> None:
    """End the connection without a reply, by a real reset: the client reads ECONNRESET."""
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    connection.transport.abort()
    await _wait_until_lost(receive)


async def _wait_until_lost(receive: Receive) -> None:
    """uvicorn sends a 500 for an application that returns without a reply, unless it saw the connection end."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _swallow(receive: Receive, wanted: int) -> None:
    """Read that many bytes of an upload, and leave the rest unread."""
    while wanted > 0:
        message = await receive()
        wanted -= len(message.get("body", b""))
        if not message.get("more_body"):
            return
