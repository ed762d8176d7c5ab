"""ComfyUI's websocket, as a closed union of events.

The stream is a hint: events missed while it was disconnected are never sent again; the queue and the history are
authoritative. So `next` returns None on silence and on a disconnect alike, and reconnects by itself, after closing the
old socket; `follow` polls after every reconnect. Unknown events are skipped, unknown fields ignored.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import websocket

from miner.comfy.client import without_user
from miner.comfy.told import Told
from miner.net.environment import websocket_options
from miner.task.stages import Progress

FIRST_PAUSE = 0.1  # seconds between connections; doubles up to LONGEST_PAUSE
LONGEST_PAUSE = 5.0
STEADY = 5.0  # seconds a connection must last for the next one to follow at once
CONNECT_TIMEOUT = 5.0
_BLOCK = 1 << 16  # bytes

PREVIEW_IMAGE = 1
PREVIEW_WITH_METADATA = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    prompt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A small picture of the render in progress."""

    mime: str
    image: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The prompt has ended; its history says how."""

    prompt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Any other message about a prompt: its executing thread lives."""

    prompt_id: str


Event = Started | Progress | Preview | Ended | Other


class _Buffered(websocket.WebSocket):
    """Reads whatever has come: the library asks the kernel for a frame's head, length and body one by one."""

    _rest = b""

    def _recv(self, bufsize: int) -> bytes:
        if not self._rest:
            self._rest = super()._recv(_BLOCK)  # type: ignore[no-untyped-call]  # untyped in the library
        data, self._rest = self._rest[:bufsize], self._rest[bufsize:]
        return data


class EventStream:
    """One websocket, kept open. Use it from one thread; another may call `close`."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        base, self._headers = without_user(url)
        self._address = f"{base.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        self._options = websocket_options(base)
        self._clock = clock
        self._socket: websocket.WebSocket | None = None
        self._closed = threading.Event()
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._pause = 0.0  # before the next connection
        self._retry_at = 0.0
        self._connected_at = 0.0
        self.connections = 0  # how often it connected; after a change, events may be missing
        self.told = Told()  # over this connection

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def connected_for(self) -> float:
        """Seconds since it connected; 0.0 if it is not connected."""
        return self._clock() - self._connected_at if self.connected else 0.0

    def reconnect(self) -> None:
        """Close the connection; `next` opens another one."""
        self._drop()

    def next(self, timeout: float) -> Event | None:
        """The next event, or None after about `timeout` seconds (plus CONNECT_TIMEOUT if it must connect)."""
        if self._socket is None and not self._connect(timeout):
            return None
        socket = self._socket
        if socket is None:
            return None
        try:
            socket.settimeout(timeout)
            opcode, frame = socket.recv_data_frame(control_frame=True)
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketException, OSError, ValueError):
            self._drop()
            return None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self._drop()
            return None
        return parse(opcode, frame.data, self.told)

    def close(self) -> None:
        self._closed.set()
        self._drop()

    def _connect(self, timeout: float) -> bool:
        """Try once if the pause is over, else wait, so that a dead ComfyUI causes no busy loop."""
        wait = self._retry_at - self._clock()
        if wait > 0:
            self._closed.wait(min(wait, timeout))
            return False
        if self._closed.is_set():
            return False
        try:
            self._socket = websocket.create_connection(
                self._address,
                header=self._headers,
                timeout=CONNECT_TIMEOUT,
                skip_utf8_validation=True,
                enable_multithread=False,
                class_=_Buffered,
                **self._options,
            )
            self._socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        except (websocket.WebSocketException, OSError):
            self._drop()
            return False
        self._connected_at = self._clock()
        self.connections += 1
        self.told = Told()
        return True

    def _drop(self) -> None:
        """Close the socket; connections that fail soon make the pause before the next one longer."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.shutdown()  # type: ignore[no-untyped-call]  # untyped in the library
        now = self._clock()
        steady = socket is not None and now - self._connected_at >= STEADY
        self._pause = 0.0 if steady else min(max(self._pause * 2, self._first_pause), self._longest_pause)
        self._retry_at = now + self._pause


def parse(opcode: int, data: bytes, told: Told | None = None) -> Event | None:
    """One frame as an event; None for those about no prompt, which come from ComfyUI's web server. `told` notes it."""
    if opcode == websocket.ABNF.OPCODE_BINARY:
        return _parse_preview(data)
    if opcode != websocket.ABNF.OPCODE_TEXT:
        return None
    try:
        message = json.loads(data)
        kind, body = message["type"], message["data"]
        prompt_id = body.get("prompt_id")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(prompt_id, str):
        return None
    if told is not None and isinstance(kind, str):
        told.note(kind, prompt_id, body)
    if kind == "executing" and body.get("node") is None:
        return Ended(prompt_id=prompt_id)
    if kind == "execution_start":
        return Started(prompt_id=prompt_id)
    progress = _parse_progress(prompt_id, body.get("nodes")) if kind == "progress_state" else None
    return progress or Other(prompt_id=prompt_id)


def _parse_progress(prompt_id: str, nodes: Any) -> Progress | None:
    states = [n for n in nodes.values() if isinstance(n, dict)] if isinstance(nodes, dict) else []
    done = sum(n.get("state") == "finished" for n in states)
    current = next((n for n in states if n.get("state") == "running"), {})
    value, of = current.get("value", 0), current.get("max", 1)
    if not (isinstance(value, int | float) and isinstance(of, int | float)):
        return None
    return Progress(prompt_id=prompt_id, value=float(value), of=float(of), done=done, nodes=len(states))


def _parse_preview(data: bytes) -> Preview | None:
    """Binary frames: >I kind, then >I format and the image, or >I length, JSON and the image."""
    try:
        kind, second = struct.unpack_from(">II", data)
        if kind == PREVIEW_IMAGE:
            return Preview(mime="image/png" if second == 2 else "image/jpeg", image=data[8:])
        if kind == PREVIEW_WITH_METADATA:
            metadata = json.loads(data[8 : 8 + second])
            mime = metadata.get("image_type", "image/jpeg")
            return Preview(mime=mime if mime == "image/png" else "image/jpeg", image=data[8 + second :])
    except (struct.error, ValueError, AttributeError):
        pass
    return None
