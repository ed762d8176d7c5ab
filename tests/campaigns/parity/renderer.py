"""A ComfyUI for the network's older miner: any prompt renders for a while, and then every node has written a file.

That miner's graphs need nodes and weights of 40 GB; what is tried here is the wire between it, devnet and the SDK.
"""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

SLOW = "slowly"
"""Prompts with this word take SLOW_SECONDS."""

SECONDS, SLOW_SECONDS = 0.3, 15.0
VIDEO = b"\0\0\0\x18ftypisom" + bytes(2000)


class Renderer:
    """`home`: the miner's `comfyui_home`, in whose `output` it looks for files."""

    def __init__(self, home: Path) -> None:
        self._output = home / "output"
        self._output.mkdir(parents=True, exist_ok=True)
        self._ended: dict[str, Any] = {}
        self._listeners: set[WebSocket] = set()
        self._running: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/object_info", self._object_info),
                Route("/prompt", self._prompt, methods=["POST"]),
                Route("/history/{prompt_id}", self._history),
                WebSocketRoute("/ws", self._listen),
            ]
        )

    async def _object_info(self, _: Request) -> JSONResponse:
        return JSONResponse({})

    async def _prompt(self, request: Request) -> JSONResponse:
        graph, prompt_id = (await request.json())["prompt"], str(uuid.uuid4())
        running = asyncio.create_task(self._render(prompt_id, graph))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return JSONResponse({"prompt_id": prompt_id})

    async def _history(self, request: Request) -> JSONResponse:
        prompt_id = request.path_params["prompt_id"]
        return JSONResponse({prompt_id: {"outputs": self._ended[prompt_id]}})

    async def _listen(self, socket: WebSocket) -> None:
        await socket.accept()
        self._listeners.add(socket)
        try:
            while True:
                await socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            self._listeners.discard(socket)

    async def _render(self, prompt_id: str, graph: dict[str, Any]) -> None:
        await asyncio.sleep(SLOW_SECONDS if SLOW in json.dumps(graph) else SECONDS)
        classes = {node["class_type"] for node in graph.values()}
        if "VHS_VideoCombine" in classes:
            name, data = f"{prompt_id}.mp4", VIDEO
        else:
            name, data = f"{prompt_id}.png", _png()
        (self._output / name).write_bytes(data)
        file = {"filename": name, "subfolder": "", "type": "output"}
        self._ended[prompt_id] = {node: {"images": [file]} for node in graph}
        over = json.dumps({"type": "executing", "data": {"node": None, "prompt_id": prompt_id}})
        for socket in list(self._listeners):
            try:
                await socket.send_text(over)
            except (WebSocketDisconnect, RuntimeError):
                self._listeners.discard(socket)


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(out, "PNG")
    return out.getvalue()
