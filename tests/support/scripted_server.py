"""An HTTP server on loopback that says whatever a test tells it to, and remembers what it was asked.

It reads a request whole before it answers, so that no answer is lost in a reset. What it says is bytes on the wire and
need not be HTTP.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Literal, Self

PATIENCE = 30.0  # seconds that it waits for an event
TICK = 0.01  # seconds between two pieces of a trickle
PIECE = 1 << 16  # bytes read at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client sent."""

    method: str
    target: str  # as it was sent, with its query
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)
    size: int  # bytes of the body
    hit: int  # how many requests for this path came before
    at: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def headers(self) -> Message:
        """Their names in any case."""
        return http.client.parse_headers(io.BytesIO(self.head.partition(b"\r\n")[2]))

    def json(self) -> Any:
        return json.loads(self.body)


RESET = object()
Step = bytes | float | threading.Event | object
"""Bytes to send, seconds or an event to wait for, or RESET to break the connection off."""
Said = bytes | Iterable[Step] | None
"""A whole reply; or steps, and then the connection ends; or None, and it ends at once."""
Answer = Callable[[Request], Said]


class ScriptedServer:
    """Listens from the start until its `with` ends; `respond` is called in the connection's thread.

    `bodies`: "drop" forgets the bodies of requests, "leave" never reads them and never answers.
    """

    def __init__(self, answer: Answer | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.otherwise: Answer = answer or (lambda _: reply(b"", status=404))  # where no path of `serve` is asked for
        self.bodies: Literal["keep", "drop", "leave"] = "keep"
        self.requests: list[Request] = []
        self.connections: set[socket.socket] = set()  # open ones
        self.accepted = 0
        self.stopping = threading.Event()
        self._answers: dict[str, Answer] = {}
        self._hits: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._listener = socket.create_server((host, port), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.host = f"{host}:{self.port}"
        self.url = f"http://{self.host}"
        self._threads = [threading.Thread(target=self._accept, name="scripted", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._listener.close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def serve(self, answer: Answer, path: str = "") -> str:
        """Answer like this at `path`, or at a new one, from now on; returns the URL."""
        path = path or f"/{len(self._answers)}"
        self._answers[path] = answer
        return self.url + path

    def respond(self, request: Request) -> Said:
        return self._answers.get(request.path, self.otherwise)(request)

    def asked(self, path: str, method: str = "") -> list[Request]:
        """The requests for a path so far."""
        return [one for one in self.requests if one.path == path and method in ("", one.method)]

    def reaches(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition comes true within ten seconds; looked at when a request or a connection changes it."""
        with self._changed:
            return self._changed.wait_for(condition, timeout=10)

    # ---- a connection -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.add(connection)
                self.accepted += 1
                thread = threading.Thread(target=self._serve, args=(connection,), name="scripted", daemon=True)
                self._threads = [*(old for old in self._threads if old.is_alive()), thread]
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as reader:
            while (request := self._read(reader)) is not None and self._say(connection, self.respond(request)):
                pass
        with self._changed:
            self.connections.discard(connection)
            self._changed.notify_all()

    def _read(self, reader: io.BufferedReader) -> Request | None:
        """The next request, noted; None where the client goes away in the middle of it."""
        method, target, head, size, body = "", "", b"", 0, bytearray()
        if reader.peek(1)[:1] == b"\x16":  # a TLS handshake
            head = reader.read1(PIECE)
        else:
            while not head.endswith(b"\r\n\r\n") and (line := reader.readline()):
                head += line
            words = head.split(b" ", 2)
            if len(words) == 3:
                method, target = words[0].decode("latin-1"), words[1].decode("latin-1")
        if not head:
            return None
        if self.bodies == "leave":
            self.stopping.wait()
            return None
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        wanted = int(length[1]) if length else 0
        while size < wanted:
            piece = reader.read(min(wanted - size, PIECE))
            if not piece:
                return None
            size += len(piece)
            if self.bodies == "keep":
                body += piece
        return self._note(method=method, target=target, head=head, body=bytes(body), size=size)

    def _note(self, *, target: str, **sent: Any) -> Request:
        path = target.partition("?")[0]
        with self._changed:
            request = Request(target=target, hit=self._hits[path], **sent)
            self._hits[path] += 1
            self.requests.append(request)
            self._changed.notify_all()
        return request

    def _say(self, connection: socket.socket, said: Said) -> bool:
        """Whether the connection can be used once more."""
        if isinstance(said, bytes):
            connection.sendall(said)
            return b"content-length:" in said.lower() or b" 204 " in said[:20]
        for step in said or ():
            if isinstance(step, bytes):
                connection.sendall(step)
            elif step is RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif isinstance(step, threading.Event):
                step.wait(PATIENCE)
            elif self.stopping.wait(float(step)):  # type: ignore[arg-type]
                break
        return False


# ---- what an answer can be ------------------------------------------------------------------------------------------


def head(status: int, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} {http.client.responses.get(status, 'Whatever')}", *headers, "", "")
    return "\r\n".join(lines).encode("latin-1")


def bare(*lines: bytes, body: bytes = b"") -> bytes:
    """A reply whose head is just these lines."""
    return b"\r\n".join((*lines, b"", b"")) + body


def reply(body: object, *headers: str, status: int = 200) -> bytes:
    """A well-formed reply; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    has_length = status == 204 or any(header.lower().startswith("content-length:") for header in headers)
    return head(status, *([] if has_length else [f"Content-Length: {len(data)}"]), *headers) + data


def whole(body: object, *headers: str, status: int = 200) -> Answer:
    """A well-formed reply, after which the connection ends."""
    return says(reply(body, *headers, status=status))


def says(*steps: Step) -> Answer:
    return lambda _: iter(steps)


def trickles(prefix: bytes, drop: bytes = b"x", *, every: float = TICK) -> Answer:
    """Begins with `prefix` and then goes on for ever, slowly."""

    def answer(_: Request) -> Iterator[Step]:
        yield prefix
        while True:
            yield every
            yield drop

    return answer


def floods(prefix: bytes, block: bytes) -> Answer:
    """Begins with `prefix` and then goes on for ever, as fast as it can."""

    def answer(_: Request) -> Iterator[Step]:
        yield prefix
        while True:
            yield block

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Another answer to each request; the last one stays."""
    return lambda request: answers[min(request.hit, len(answers) - 1)](request)


def redirect(location: str, status: int = 302, *headers: str) -> Answer:
    return whole(b"", f"Location: {location}", *headers, status=status)
