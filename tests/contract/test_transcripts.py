"""Replays recorded conversations with real ComfyUIs against the engine, and compares the shapes of what it says.

What took ComfyUI seconds is replaced by a DevnetWait that ends when the replay is as far as the recording was, so that
the order of events does not depend on this machine's speed. What was cached when the recording was made is run first.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import RECORDINGS

from .conftest import REAL
from .graphs import Graph, encoded, node, picture, simple
from .wire import Comfy, Event, Stream

TRANSCRIPTS = sorted(RECORDINGS.glob("transcripts/*/*.jsonl"))
SLOW = 1024  # pixels: images of this size were there to take time
UNLIKE = ("/system_stats", "/features", "/models", "/object_info")  # there the engine says less: see test_info

pytestmark = pytest.mark.skipif(bool(REAL), reason="a recording is replayed against the engine")


def shape(value: Any) -> Any:
    """The structure of a value: types instead of values, a list as the set of its elements' shapes."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in sorted(value.items())}
    if isinstance(value, list):
        return sorted({json.dumps(shape(one)) for one in value})
    if isinstance(value, bool) or value is None:
        return str(value)
    return "number" if isinstance(value, (int, float)) else "text"


def alike(ours: Any, recorded: Any) -> None:
    """The same shape, where an empty list is like any other."""
    if isinstance(ours, list) and isinstance(recorded, list) and not (ours and recorded):
        return
    if isinstance(ours, dict) and isinstance(recorded, dict):
        assert ours.keys() == recorded.keys()
        for key in ours:
            alike(ours[key], recorded[key])
        return
    assert shape(ours) == shape(recorded)


class Replay:
    """One conversation, line by line."""

    def __init__(self, comfy: Comfy, lines: list[dict[str, Any]]) -> None:
        self.comfy = comfy
        self.lines = lines
        self.gate = f"{uuid.uuid4().hex}.gate"
        self.ids: dict[str, str] = {}  # recorded prompt id → ours
        self.stream: Stream | None = None
        self.expected: list[str] = []
        self.heard = 0  # of what the stream has seen
        self.connections = contextlib.ExitStack()
        flagged = any(line.get("ws_text", {}).get("type") == "feature_flags" for line in lines)
        self.flags = {"supports_preview_metadata": True} if flagged else None
        self.client = uuid.uuid4().hex
        self.slow = False  # whether the recorded prompt took long

    def run(self) -> None:
        with self.connections:
            for line in self.lines:
                for kind, what in line.items():
                    if step := getattr(self, f"on_{kind}", None):
                        step(what)
            self.compare()

    def on_ws(self, what: str) -> None:
        if what == "connected":
            if self.stream and not self.slow:  # the recording came back when all was over
                self.comfy.idle()
            self.stream = self.connections.enter_context(self.comfy.stream(self.client, flags=self.flags))
            self.heard, self.expected = 0, []
        elif what == "dropped by client":
            self.compare()
            self.reach_the_wait()
            self.connections.close()
        else:  # a time-out: nothing came
            assert self.stream is not None
            assert self.stream.is_silent()

    def on_ws_text(self, what: dict[str, Any]) -> None:
        event = Event(what["type"], what["data"])
        if event.type in ("status", "feature_flags"):
            return
        if event.outline in ("progress_state 1:finished 2:finished", "execution_interrupted"):
            self.comfy.upload(self.gate, b"", overwrite="true")
        self.expected.append(event.outline)
        alike(self.next().data, event.data)

    def next(self) -> Event:
        """Our next event that is no status."""
        assert self.stream is not None
        while True:
            if self.heard == len(self.stream.seen):
                self.stream.next()
            event = self.stream.seen[self.heard]
            self.heard += 1
            assert isinstance(event, Event)
            if event.type not in ("status", "feature_flags"):
                return event

    def compare(self) -> None:
        if self.stream:
            ours = [event.outline for event in self.stream.seen[: self.heard]]
            assert [outline for outline in ours if outline not in ("status", "feature_flags")] == self.expected

    def on_http(self, what: dict[str, Any]) -> None:
        method, path, body = what["request"]
        path, body = json.loads(self.renamed(json.dumps([path, body])))
        if path != "/prompt":
            self.reach_the_wait()
        if isinstance(body, dict) and "prompt" in body:
            self.slow = takes_time(body["prompt"])
            graph = hastened(body["prompt"], self.gate) if self.slow else body["prompt"]
            body = {**body, "prompt": graph, "client_id": self.client}
        answer = self.comfy.session.request(method, self.comfy.url + path, json=body, timeout=60)
        assert answer.status_code == what["status"], answer.text
        if "prompt_id" in what["response"]:
            self.ids[what["response"]["prompt_id"]] = answer.json()["prompt_id"]
        if "bytes" not in what["response"] and not path.startswith(UNLIKE):
            recorded = json.loads(self.renamed(json.dumps(what["response"])))
            alike(comparable(answer.json()), comparable(recorded))

    def reach_the_wait(self) -> None:
        """Where the recorded prompt took long, what followed came while its second node ran."""
        if self.slow and self.stream and "executing 2" not in (event.outline for event in self.stream.seen):
            self.stream.until_outline("executing 2")

    def renamed(self, text: str) -> str:
        """With our prompts' ids instead of the recorded ones."""
        for recorded, ours in self.ids.items():
            text = text.replace(recorded, ours)
        return text

    def on_upload(self, what: dict[str, Any]) -> None:
        answer = self.comfy.post("/upload/image", files={"image": ("base.png", b"x")}, data={"subfolder": "job-1"})
        assert answer.status_code == what["status"]
        alike(answer.json(), what["response"])


def comparable(answer: Any) -> Any:
    """Without graphs, which a replay may have changed, and what depends on earlier prompts."""
    if isinstance(answer, dict):
        # a list of jobs has older ones in it too, and may go on
        left_out = ("prompt", "workflow", "input_config", "jobs", "has_more")
        return {key: comparable(value) for key, value in answer.items() if key not in left_out}
    if isinstance(answer, list):
        return [comparable(value) for value in answer if not is_graph(value)]
    return answer


def is_graph(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(one, dict) and "class_type" in one for one in value.values())


def takes_time(graph: Graph) -> bool:
    return any(found["inputs"].get("width", 0) >= SLOW for found in graph.values())


def hastened(graph: Graph, gate: str) -> Graph:
    """A recorded graph that took time, with small images, and a wait that the gate ends."""
    small = node("EmptyImage", **{**graph["1"]["inputs"], "width": 16, "height": 16})
    wait = node("DevnetWait", image=["1", 0], seconds=60, interruptible=False, until=gate)
    return {**graph, "1": small, "2": wait}


def cached_before(lines: list[dict[str, Any]]) -> Iterator[Graph]:
    """Graphs after which is cached what was so in the recording."""
    graph: Graph = {}
    for line in lines:
        if "http" in line and line["http"]["request"][:2] == ["POST", "/prompt"]:
            graph = line["http"]["request"][2]["prompt"]
        event = line.get("ws_text", {})
        if event.get("type") == "execution_cached" and (nodes := event["data"]["nodes"]):
            shown = {} if len(nodes) > 1 else {"show": node("PreviewImage", images=[nodes[0], 0])}
            yield {**{name: graph[name] for name in nodes}, **shown}


def unknown_nodes(comfy: Comfy, lines: list[dict[str, Any]]) -> set[str]:
    """The classes of recorded graphs that the engine does not have, but for what nobody has."""
    graphs = [line["http"]["request"][2] for line in lines if "http" in line]
    kinds = {one["class_type"] for body in graphs if body and "prompt" in body for one in body["prompt"].values()}
    return {kind for kind in kinds - {"NoSuchNode"} if not comfy.has(kind)}


@pytest.mark.parametrize(
    ("comfy", "path"),
    [pytest.param(path.parent.name, path, id=f"{path.parent.name}-{path.stem}") for path in TRANSCRIPTS],
    indirect=["comfy"],
    scope="session",
)
def test_the_engine_says_what_comfyui_said(comfy: Comfy, path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if missing := unknown_nodes(comfy, lines):
        pytest.skip(f"the engine does not have {', '.join(sorted(missing))}")
    comfy.upload("base.png", encoded(picture()), subfolder="job-1", overwrite="true")
    comfy.upload("corrupt.png", b"nothing good", subfolder="job-1", overwrite="true")
    comfy.run(simple())  # whatever was cached is not any more
    for graph in cached_before(lines):
        comfy.run(graph)
    Replay(comfy, lines).run()
