"""A small client of ComfyUI's protocol, for these tests alone: it hides nothing and repairs nothing."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests
import websocket
from PIL import Image

PATIENCE = 60.0  # seconds; a test that waits that long has failed
T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        pause.wait(0.01)
    return value


@dataclass(frozen=True, slots=True)
class Event:
    """A text message: its type and its data."""

    type: str
    data: dict[str, Any]

    @property
    def remaining(self) -> int:
        """Of a status: how many prompts wait or run."""
        return self.data["status"]["exec_info"]["queue_remaining"]  # type: ignore[no-any-return]

    @property
    def outline(self) -> str:
        """The event without what differs from run to run."""
        match self.type:
            case "progress_state":
                states = (f"{node}:{state['state']}" for node, state in self.data["nodes"].items())
                return f"progress_state {' '.join(states)}"
            case "executing" | "executed":
                return f"{self.type} {self.data['node']}"
            case "execution_cached":
                return f"execution_cached {self.data['nodes']}"
        return self.type


@dataclass(frozen=True, slots=True)
class Preview:
    """A binary message: ComfyUI's event number (1 or 4), and the rest."""

    number: int
    body: bytes

    @property
    def outline(self) -> str:
        return f"preview {self.number}"

    def metadata(self) -> dict[str, Any]:
        length = int.from_bytes(self.body[:4])
        return json.loads(self.body[4 : 4 + length])  # type: ignore[no-any-return]

    def image(self) -> Image.Image:
        start = 4 + int.from_bytes(self.body[:4]) if self.number == 4 else 4
        return Image.open(io.BytesIO(self.body[start:]))


class Stream:
    """One websocket connection."""

    def __init__(self, connection: websocket.WebSocket, client: str) -> None:
        self.client = client
        self.seen: list[Event | Preview] = []
        self._connection = connection

    def next(self, seconds: float = PATIENCE) -> Event | Preview:
        self._connection.settimeout(seconds)
        message = self._connection.recv()
        if isinstance(message, bytes):
            self.seen.append(Preview(int.from_bytes(message[:4]), message[4:]))
        else:
            found = json.loads(message)
            self.seen.append(Event(found["type"], found["data"]))
        return self.seen[-1]

    def send(self, message: Any) -> None:
        self._connection.send(json.dumps(message))

    def close(self) -> None:
        self._connection.close()

    def until(self, wanted: Callable[[Event | Preview], bool]) -> Event | Preview:
        while not wanted(event := self.next()):
            pass
        return event

    def until_outline(self, outline: str) -> Event | Preview:
        return self.until(lambda event: event.outline == outline)

    def until_done(self, prompt_id: str) -> list[Event | Preview]:
        """Everything of a prompt, up to its last event, without the statuses. Events of others are left out."""
        self.until(
            lambda event: (
                isinstance(event, Event)
                and (event.type, event.data.get("node"), event.data.get("prompt_id")) == ("executing", None, prompt_id)
            )
        )
        return [event for event in self.seen if _is_of(event, prompt_id)]

    def is_silent(self, seconds: float = 0.15, *, statuses: bool = True) -> bool:
        """Whether nothing comes for a while; statuses, which are for everyone, may."""
        try:
            while (event := self.next(seconds)).outline == "status" and statuses:
                pass
        except websocket.WebSocketTimeoutException:
            return True
        raise AssertionError(f"not silent: {event}")


def _is_of(event: Event | Preview, prompt_id: str) -> bool:
    return isinstance(event, Preview) or event.data.get("prompt_id") == prompt_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A prompt that was run to its end."""

    prompt_id: str
    events: list[Event | Preview] = field(repr=False)
    entry: dict[str, Any] = field(repr=False)  # the history's, as it was when the last event had come

    @property
    def outline(self) -> list[str]:
        return [event.outline for event in self.events]

    @property
    def files(self) -> list[dict[str, str]]:
        return [file for shown in self.entry["outputs"].values() for file in shown["images"]]

    def event(self, kind: str) -> dict[str, Any]:
        """The data of the only event of a kind."""
        (found,) = [event for event in self.events if isinstance(event, Event) and event.type == kind]
        return found.data

    def message(self, kind: str) -> dict[str, Any]:
        return dict(self.entry["status"]["messages"])[kind]  # type: ignore[no-any-return]


class Comfy:
    """A ComfyUI, or the embedded engine."""

    def __init__(self, url: str, session: requests.Session, folder: Path | None) -> None:
        self.url = url
        self.session = session
        self.session.trust_env = False  # no proxy, and no search for one at each request
        self.folder = folder  # the engine's; None: a real ComfyUI
        self.version: str = self.get("/system_stats").json()["system"]["comfyui_version"]

    @property
    def newer(self) -> bool:
        return tuple(int(part) for part in self.version.split(".")[:2]) >= (0, 33)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=PATIENCE, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=PATIENCE, **options)

    def prompt(self, graph: Any, **fields: Any) -> requests.Response:
        return self.post("/prompt", json={"prompt": graph, **fields})

    def submit(self, graph: Any, **fields: Any) -> str:
        """The prompt's id."""
        answer = self.prompt(graph, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["prompt_id"]  # type: ignore[no-any-return]

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        return self.get(f"/history/{prompt_id}").json().get(prompt_id)  # type: ignore[no-any-return]

    def wait(self, prompt_id: str) -> dict[str, Any]:
        return until(lambda: self.history(prompt_id))  # type: ignore[return-value]

    def idle(self) -> None:
        """Wait until nothing waits or runs."""
        until(lambda: self.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)

    @contextlib.contextmanager
    def stream(self, client: str | None = None, *, flags: dict[str, Any] | None = None) -> Iterator[Stream]:
        """A connection that has had its first message, and its answer to `flags` where those are given."""
        client = client or uuid.uuid4().hex
        address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={client}"
        # Its check of UTF-8 takes a second for a few megabytes, in Python.
        fast = websocket.create_connection(address, timeout=PATIENCE, skip_utf8_validation=True)
        with contextlib.closing(fast) as connection:
            stream = Stream(connection, client)
            if flags is not None:
                stream.send({"type": "feature_flags", "data": flags})
                stream.until_outline("feature_flags")
            else:
                stream.until_outline("status")
            yield stream

    def run(self, graph: Any, *, flags: dict[str, Any] | None = None, **fields: Any) -> Ran:
        """Submit and follow to the end. The history is asked for once, right after the last event."""
        with self.stream(flags=flags) as stream:
            prompt_id = self.submit(graph, client_id=stream.client, **fields)
            events = stream.until_done(prompt_id)
            entry = self.history(prompt_id)
        assert entry is not None, "the history has no entry after the last event"
        return Ran(prompt_id=prompt_id, events=events, entry=entry)

    def upload(self, name: str, data: bytes, **fields: str) -> str:
        """The name under which a graph finds it."""
        answer = self.post("/upload/image", files={"image": (name, data)}, data=fields)
        assert answer.status_code == 200, answer.text
        kept = answer.json()
        return f"{kept['subfolder']}/{kept['name']}".removeprefix("/")

    def view(self, file: dict[str, str]) -> requests.Response:
        return self.get("/view", params=file)

    def image(self, file: dict[str, str]) -> Image.Image:
        answer = self.view(file)
        assert answer.status_code == 200, answer.text
        return Image.open(io.BytesIO(answer.content))

    def has(self, node: str) -> bool:
        return node in self.get(f"/object_info/{node}").json()
