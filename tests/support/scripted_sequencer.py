"""A server that says whatever it is told to: a lying sequencer, or a ComfyUI that is none.

It promises that a request was read whole before it is answered, so that no answer is lost in a reset. What it says is
bytes on the wire and need not be HTTP.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.listening import Listening

Said = bytes | Iterator[bytes] | None
"""Bytes to send; pieces to send until the client goes away; None closes the connection without a word."""

TICK = 0.05  # seconds between two pieces of a trickle


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One request."""

    path: str  # without its query
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Liar(Listening):
    """Listens on a port of its own; `answer` is called in the connection's thread."""

    def __init__(self, answer: Callable[[Heard], Said]) -> None:
        self._answer = answer
        super().__init__()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"

    def trickle(self, *pieces: bytes, then: bytes) -> Iterator[bytes]:
        """The pieces at once, and then `then` for ever, slowly."""
        yield b"".join(pieces)
        while not self.stopping.wait(TICK):
            yield then

    def talk(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            while (heard := _read(reader)) is not None:
                said = self._answer(heard)
                if said is None:
                    break
                for piece in (said,) if isinstance(said, bytes) else said:
                    connection.sendall(piece)
                if not isinstance(said, bytes) or b"content-length" not in said.lower():
                    break  # its end is the connection's


def _read(reader: Any) -> Heard | None:
    first = reader.readline()
    if not first:
        return None
    lines = [first]
    while lines[-1] not in (b"\r\n", b""):
        lines.append(reader.readline())
    lengths = [line.partition(b":")[2] for line in lines if line.lower().startswith(b"content-length:")]
    body = reader.read(int(lengths[0])) if lengths else b""
    path = first.split(b" ")[1].partition(b"?")[0].decode("latin-1")
    return Heard(path=path, head=b"".join(lines), body=body)


def reply(body: object, *headers: str, status: int = 200) -> bytes:
    """A well-formed reply; what is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}", *headers, "", "")
    return "\r\n".join(head).encode("latin-1") + data


def bare(*lines: bytes, body: bytes = b"") -> bytes:
    """A reply whose head is just these lines."""
    return b"\r\n".join((*lines, b"", b"")) + body
