"""The websocket clients, and the one task that sends to them, event by event.

As in ComfyUI: the sender waits for a slow reader, and everyone waits with it; an event for a client that is not
connected is lost; a second connection of the same client takes the first one's place, and loses it when the first ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

PREVIEW, PREVIEW_WITH_METADATA = 1, 4  # ComfyUI's binary events
_JPEG = 1  # ComfyUI's number for the format of a plain preview
METADATA_FLAG = "supports_preview_metadata"


def encode(event: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"type": event, "data": data})


class Hub:
    """Made, joined and drained in the event loop; `publish` and `publish_preview` are for any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[str | bytes, str | None]] = asyncio.Queue()
        self._sockets: dict[str, WebSocket] = {}
        self._flags: dict[str, Mapping[str, Any]] = {}

    def join(self, client: str, socket: WebSocket) -> None:
        self._sockets[client] = socket
        self._flags[client] = {}

    def leave(self, client: str) -> None:
        self._sockets.pop(client, None)
        self._flags.pop(client, None)

    def negotiate(self, client: str, flags: Mapping[str, Any]) -> None:
        """Remember what a client says it understands."""
        self._flags[client] = flags

    def publish(self, event: str, data: Mapping[str, Any], client: str | None) -> None:
        """Send an event to a client, or to all where `client` is None. Returns at once."""
        self._enqueue(encode(event, data), client)

    def publish_preview(self, jpeg: bytes, where: Mapping[str, Any], client: str | None) -> bool:
        """Send a preview if the client understands the form with metadata; whether it does."""
        if client is None or not self._flags.get(client, {}).get(METADATA_FLAG):
            return False
        metadata = json.dumps({**where, "image_type": "image/jpeg"}).encode()
        header = struct.pack(">II", PREVIEW_WITH_METADATA, len(metadata))
        self._enqueue(header + metadata + jpeg, client)
        return True

    def publish_plain_preview(self, jpeg: bytes, client: str | None) -> None:
        self._enqueue(struct.pack(">II", PREVIEW, _JPEG) + jpeg, client)

    async def drain(self) -> None:
        """Send what is published, until cancelled."""
        while True:
            message, client = await self._events.get()
            names = list(self._sockets) if client is None else [client]
            for name in names:
                if name in self._sockets:  # per client: one may leave while another is sent to
                    await send(self._sockets[name], message)

    def _enqueue(self, message: str | bytes, client: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
            self._loop.call_soon_threadsafe(self._events.put_nowait, (message, client))


async def send(socket: WebSocket, message: str | bytes) -> None:
    """Send, and wait while the reader is slow. A reader that is gone is not an error."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # RuntimeError: Starlette's, of a closed socket
        if isinstance(message, str):
            await socket.send_text(message)
        else:
            await socket.send_bytes(message)
