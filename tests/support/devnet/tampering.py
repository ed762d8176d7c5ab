"""Carries faults out: an ASGI layer between the sockets and the application.

It promises that a request without a matching rule passes untouched and unbuffered. A reply that a rule may spoil is
held in memory until it is whole.
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
from miner.devnet.wire import BODY_LIMIT
from tests.support.devnet.faults import Exchange, Faults, Rule
from tests.support.devnet.routes import UPLOAD_ROUTES, route_of

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

    async def send(self, send: Send) -> None:
        await self.start(send)
        await send({"type": "http.response.body", "body": bytes(self.body)})


class Tampering:
    """The layer. What it holds up is let go when `stopping` is set."""

    def __init__(self, app: ASGIApp, *, faults: Faults, stopping: asyncio.Event) -> None:
        self._app = app
        self._faults = faults
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = route_of(scope["method"], scope["path"]) if scope["type"] == "http" else ""
        if not self._faults.concern(route):
            await self._app(scope, receive, send)
            return
        read = [] if route in UPLOAD_ROUTES else await _read(receive)  # an object is never held in memory
        onward = _again(read, receive)
        body = b"".join(message.get("body", b"") for message in read)
        exchange = Exchange(route=route, sent=b"?".join((scope["raw_path"], scope["query_string"], body)))
        rule = self._faults.before(exchange)
        if rule is not None:
            scope["state"]["fault"] = rule.action
            await self._spoil(rule, _Reply(), scope, onward, send)
            if rule.action != "latency":
                return
        if self._faults.may_follow(exchange):
            await self._act_first(exchange, scope, onward, send)
        else:
            await self._app(scope, onward, send)

    async def _act_first(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply()
        await self._app(scope, receive, reply.take)
        rule = self._faults.after(Exchange(route=exchange.route, sent=exchange.sent, replied=bytes(reply.body)))
        if rule is None:
            await reply.send(send)
            return
        scope["state"]["fault"] = rule.action
        await self._spoil(rule, reply, scope, receive, send)

    async def _spoil(self, rule: Rule, reply: _Reply, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        match rule.action:
            case "fail":
                told = JSONResponse({"message": "a fault that was asked for"}, rule.status, headers=rule.headers)
                await told(scope, receive, send)
            case "garbage":
                await Response(rule.body, headers=rule.headers, media_type="text/html")(scope, receive, send)
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
            case "trickle":
                await self._trickle(rule, reply, scope, receive, send)

    async def _trickle(self, rule: Rule, reply: _Reply, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        await reply.start(send)
        step = rule.bytes or 1
        for at in range(0, len(reply.body), step):
            await self._pause(connection, rule.seconds)
            await send({"type": "http.response.body", "body": bytes(reply.body[at : at + step]), "more_body": True})
            if connection.gone():
                await _close(connection, receive)
                return
        await send({"type": "http.response.body", "body": b""})

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


async def _read(receive: Receive) -> list[Message]:
    """The messages of a call's body, or as many as show that it is too long."""
    messages: list[Message] = []
    size = 0
    while size <= BODY_LIMIT:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        if not messages[-1].get("more_body"):
            break
    return messages


def _again(read: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives what was read already, and after it what comes."""
    pending = iter(read)

    async def onward() -> Message:
        return next(pending, None) or await receive()

    return onward


async def _swallow(receive: Receive, wanted: int) -> None:
    """Read that many bytes of an upload, and leave the rest unread."""
    while wanted > 0:
        message = await receive()
        wanted -= len(message.get("body", b""))
        if not message.get("more_body"):
            return
