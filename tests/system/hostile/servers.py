"""A server that says whatever a row of the table wants it to, over real sockets on loopback."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.support.listening import Listening


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent: the head of its request, and the how many-th one for this path it is, from 0."""

    head: bytes
    hit: int


RESET = object()
Step = bytes | float | object
"""Bytes to send, seconds to wait, or RESET to break the connection off."""
Answer = Callable[[Request], Iterator[Step]]


class Server(Listening):
    """Answers each path as it was told to; a connection is closed when its answer is over."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.hits: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.otherwise: Answer = NOT_FOUND  # to what is no path that is served, or no HTTP
        self._answers: dict[str, Answer] = {}
        super().__init__(host, port)

    def serve(self, answer: Answer) -> str:
        """Serve it from now on; gives the URL."""
        path = f"/{len(self._answers)}"
        self._answers[path] = answer
        return f"http://127.0.0.1:{self.port}{path}"

    def talk(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and not head.startswith(b"\x16"):  # a TLS handshake is answered as it is
            block = connection.recv(65536)
            if not block:
                break
            head += block
        self._answer(connection, head)

    def _answer(self, connection: socket.socket, head: bytes) -> None:
        words = head.split(b" ", 2)
        path = words[1].decode("latin-1").partition("?")[0] if len(words) == 3 else ""
        self.heads.append(head)
        request = Request(head=head, hit=self.hits[path])
        self.hits[path] += 1
        for step in self._answers.get(path, self.otherwise)(request):
            if isinstance(step, bytes):
                connection.sendall(step)
            elif step is RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif self.stopping.wait(float(step)):  # type: ignore[arg-type]
                return
        if head.startswith(b"PUT") and not self.stopping.is_set():
            _drain(connection)


def _drain(connection: socket.socket) -> None:
    """Let a client finish its body, so that closing does not take the answer away from it."""
    connection.settimeout(5)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


# ---- what an answer can be ------------------------------------------------------------------------------------------


def head(status: int, *headers: str) -> bytes:
    return "".join((f"HTTP/1.1 {status} Whatever\r\n", *(f"{header}\r\n" for header in headers), "\r\n")).encode(
        "latin-1"
    )


def whole(body: bytes, *headers: str, status: int = 200) -> Answer:
    """A well-formed answer."""
    return says(head(status, f"Content-Length: {len(body)}", *headers) + body)


def says(*steps: Step) -> Answer:
    def answer(_: Request) -> Iterator[Step]:
        yield from steps

    return answer


def trickles(prefix: bytes, drop: bytes = b"x", *, every: float = 0.01) -> Answer:
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

    def answer(request: Request) -> Iterator[Step]:
        yield from answers[min(request.hit, len(answers) - 1)](request)

    return answer


NOT_FOUND = whole(b"", status=404)


def redirect(location: str, status: int = 302, *headers: str) -> Answer:
    return says(head(status, f"Location: {location}", "Content-Length: 0", *headers))
