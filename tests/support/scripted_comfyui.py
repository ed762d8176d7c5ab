"""A scripted ComfyUI: it takes every prompt, and says of its end what a test wants. It has no websocket."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from miner.task.stages import Graph
from tests.support.scripted_server import Request, Said, ScriptedServer, reply

STATS: dict[str, Any] = {"system": {"comfyui_version": "0.33.0"}, "devices": [{"name": "cpu", "type": "cpu"}]}
INFO: dict[str, Any] = {
    "LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}}, "output": ["IMAGE", "MASK"]},
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "x"}]}},
        "output": [],
    },
}

OWN = "<own>"  # stands for the sub-folder that a prompt's files belong into


def success(**file: Any) -> dict[str, Any]:
    """A history that names one output file; `file` changes how."""
    named = {"filename": "out.png", "subfolder": OWN, "type": "output", **file}
    return {"status": {"status_str": "success"}, "outputs": {"save": {"images": [named]}}}


def failure(*messages: Any) -> dict[str, Any]:
    return {"status": {"status_str": "error", "messages": list(messages)}, "outputs": {}}


def error(**data: Any) -> list[Any]:
    return ["execution_error", {"exception_type": "E", "exception_message": "m", "node_type": "N", **data}]


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "navy").save(out, "PNG")
    return out.getvalue()


class ScriptedComfyUI(ScriptedServer):
    """`stats` and `infos` are said once each before the true ones."""

    def __init__(self, *, stats: Iterable[Any] = (), infos: Iterable[Any] = ()) -> None:
        self._stats = iter(stats)
        self._infos = iter(infos)
        self.nodes = dict(INFO)
        self.slash = "/"  # of its host's system, in the folders that it names
        self._away = False
        self._running: dict[str, Graph] = {}
        self._ended: dict[str, Graph] = {}
        # of each prompt; None: it runs until it is cancelled; a function makes it of the graph
        self.end: Any = success()
        self.refusal: Any = None  # what /prompt answers with 400, where it is not None
        super().__init__()

    @contextmanager
    def away(self) -> Iterator[None]:
        """It answers nothing for as long as the block lasts."""
        self._away = True
        yield
        self._away = False

    def respond(self, request: Request) -> Said:
        if self._away:
            return None
        match request.path.split("/")[1:]:
            case ["system_stats"]:
                return reply(next(self._stats, STATS))
            case ["object_info"]:
                return reply(next(self._infos, self.nodes))
            case ["upload", "image"]:
                return reply({"name": "image.png", "subfolder": ""})
            case ["prompt"]:
                return self._take(request.json())
            case ["queue"]:
                return self._queue(request)
            case ["interrupt"]:
                return self._cancel(request.json()["prompt_id"])
            case ["history", prompt_id]:
                return self._tell(prompt_id)
            case ["view"]:
                return reply(png())
        return reply({}, status=404)

    def _queue(self, request: Request) -> bytes:
        if request.body:
            return self._cancel(*request.json()["delete"])
        return reply({"queue_running": [[0, prompt_id] for prompt_id in self._running], "queue_pending": []})

    def _take(self, order: dict[str, Any]) -> bytes:
        if self.refusal is not None:
            return reply(self.refusal, status=400)
        prompt_id, graph = order["prompt_id"], order["prompt"]
        (self._running if self._end_of(graph) is None else self._ended)[prompt_id] = graph
        return reply({"prompt_id": prompt_id, "node_errors": {}})

    def _cancel(self, prompt_id: str) -> bytes:
        self._running.pop(prompt_id, None)
        return reply({})

    def _tell(self, prompt_id: str) -> bytes:
        if prompt_id not in self._ended:
            return reply({})
        end = json.dumps({prompt_id: self._end_of(self._ended[prompt_id])})
        return reply(end.replace(OWN, json.dumps(f"xalora{self.slash}{prompt_id}")[1:-1]).encode())

    def _end_of(self, graph: Graph) -> Any:
        return self.end(graph) if callable(self.end) else self.end
