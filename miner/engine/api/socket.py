"""The websocket: who listens, what they understand, where their prompt is."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from miner.engine.api.info import server_features
from miner.engine.hub import encode, send
from miner.engine.state import engine_of

log = logging.getLogger("engine")


async def listen(socket: WebSocket) -> None:
    engine = engine_of(socket)
    await socket.accept()
    client = socket.query_params.get("clientId") or uuid.uuid4().hex
    engine.hub.join(client, socket)
    try:
        info = {"exec_info": {"queue_remaining": engine.prompts.remaining()}}
        await send(socket, encode("status", {"status": info, "sid": client}))
        if node := engine.executor.where(client):  # without its prompt_id: that is how ComfyUI says it here
            await send(socket, encode("executing", {"node": node}))
        first = True
        async for message in _messages(socket):
            if first and message.get("type") == "feature_flags":
                engine.hub.negotiate(client, message.get("data", {}))
                await send(socket, encode("feature_flags", server_features(engine.dialect, engine.max_upload)))
            first = False
    finally:
        engine.hub.leave(client)


async def _messages(socket: WebSocket) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects that a client sends, until it goes."""
    while (event := await socket.receive())["type"] != "websocket.disconnect":
        try:
            message = json.loads(event.get("text") or "null")
        except ValueError:
            log.warning("a client sent a message that is no JSON")
            continue
        if isinstance(message, dict):
            yield message


ROUTES = (WebSocketRoute("/ws", listen),)
