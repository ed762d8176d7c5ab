"""What a run reports, to its client and the history: messages, node states, previews."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps

from miner.engine.hub import Hub

_QUICK = 0.1  # seconds: the newer ComfyUI sends no two steps within that
_SMALL = 0.005  # of the whole: nor a step that small


class Report:
    """One run's. Without a client progress and the interrupt go to everyone, and the rest to no one, as in ComfyUI."""

    def __init__(self, *, hub: Hub, prompt_id: str, client: str | None, preview_size: int, throttle: bool) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._hub = hub
        self._prompt_id = prompt_id
        self._client = client
        self._preview_size = preview_size
        self._throttle = throttle
        self._node = ""
        self._states: dict[str, dict[str, Any]] = {}
        self._sent: tuple[float, float] | None = None  # when (monotonic) and what value the last step had

    def message(self, event: str, *, broadcast: bool = False, **data: Any) -> None:
        """An event that the history keeps."""
        dated = {"prompt_id": self._prompt_id, **data, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, dated))
        if self._client is not None or broadcast:
            self._hub.publish(event, dated, self._client)

    def executing(self, node: str | None) -> None:
        """Which node runs; None, after all else: the prompt is done."""
        display = {} if node is None else {"display_node": node}
        self._tell("executing", {"node": node, **display, "prompt_id": self._prompt_id})

    def executed(self, node: str, shown: Mapping[str, Any] | None) -> None:
        self._tell("executed", {"node": node, "display_node": node, "output": shown, "prompt_id": self._prompt_id})

    def started(self, node: str) -> None:
        self._node, self._sent = node, None
        self._set(node, 0.0, 1.0, "running")

    def finished(self, node: str) -> None:
        """ComfyUI counts a node that reported nothing as one step: 1.0 of 1.0, or 1 of 1 where it was cached."""
        whole = self._states.get(node, {"max": 1})["max"]
        self._set(node, whole, whole, "finished")

    def progress(self, value: float, maximum: float, preview: Image.Image | None) -> None:
        """A step of the node that was started last. `preview` goes out with it, as JPEG."""
        node = self._node
        if self._throttle and not preview and value < maximum and self._too_soon(value, maximum):
            return
        self._sent = time.monotonic(), value
        self._set(node, value, maximum, "running")
        jpeg = self._jpeg(preview) if preview else b""
        told = bool(jpeg) and self._hub.publish_preview(jpeg, self._where(node), self._client)
        step = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": node}
        self._hub.publish("progress", step, self._client)
        if jpeg and not told:
            self._hub.publish_plain_preview(jpeg, self._client)

    def _too_soon(self, value: float, maximum: float) -> bool:
        if self._sent is None:
            return False
        when, last = self._sent
        return time.monotonic() - when < _QUICK or (value - last) < _SMALL * maximum

    def _set(self, node: str, value: float, maximum: float, state: str) -> None:
        self._states[node] = {"value": value, "max": maximum, "state": state, **self._where(node)}
        self._hub.publish("progress_state", {"prompt_id": self._prompt_id, "nodes": self._states}, self._client)

    def _where(self, node: str) -> dict[str, Any]:
        return {
            "node_id": node,
            "prompt_id": self._prompt_id,
            "display_node_id": node,
            "parent_node_id": None,
            "real_node_id": node,
        }

    def _tell(self, event: str, data: Mapping[str, Any]) -> None:
        if self._client is not None:
            self._hub.publish(event, data, self._client)

    def _jpeg(self, picture: Image.Image) -> bytes:
        size = (self._preview_size, self._preview_size)
        buffer = io.BytesIO()
        ImageOps.contain(picture, size, Image.Resampling.BILINEAR).save(buffer, format="JPEG", quality=95)
        return buffer.getvalue()
