"""A sequencer that says what a test tells it to, over real sockets.

It records every request, knows its open connections, and answers each path with the next of its replies; the last one
is repeated. A reply can also be DROP (the connection ends without one), CUT (it ends in the middle of one) or HANG
(nothing comes until the test is over).
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

DROP, CUT, HANG = "drop", "cut", "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """One reply. A body that is not bytes is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Stub:
    """The server. `url` is its base; it listens from the start, and until `close`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections: set[socket.socket] = set()
        self.over = threading.Event()
        self._replies: dict[str, list[Say | str]] = {}
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.stub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="stub")
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, *replies: Say | str | dict[str, Any]) -> None:
        """From now on, `path` answers these, one a request; a dict is a 200 with that JSON."""
        with self._changed:
            self._replies[path] = [Say(body=reply) if isinstance(reply, dict) else reply for reply in replies]

    def sent(self, path: str) -> list[Any]:
        """The JSON that was sent to this path, in order."""
        with self._changed:
            return [request.json for request in self.requests if request.path == path]

    def reaches(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition comes true, within ten seconds."""
        with self._changed:
            return self._changed.wait_for(condition, timeout=10)

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        with self._changed:
            for connection in self.connections:
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()  # joins the threads of the connections

    def take(self, request: Request) -> Say | str:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            replies = self._replies.get(request.path)
            if not replies:
                return Say(body={"message": f"no reply was given for {request.path}"}, status=404)
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self.connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self.connections.discard(connection)
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    stub: Stub


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: 40 ms with it

    @property
    def stub(self) -> Stub:
        return cast("_Server", self.server).stub

    def setup(self) -> None:
        super().setup()
        self.stub.opened(self.connection)

    def finish(self) -> None:
        super().finish()
        self.stub.closed(self.connection)

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(method=self.command, path=self.path, headers=dict(self.headers), body=body)
        reply = self.stub.take(request)
        if isinstance(reply, Say):
            self.say(reply)
            return
        if reply == CUT:
            self.say(Say(body=b"half", headers={"Content-Length": "8"}))
        if reply == HANG:
            self.stub.over.wait(30)
        self.close_connection = True

    def say(self, reply: Say) -> None:
        as_bytes = isinstance(reply.body, bytes)
        body = reply.body if as_bytes else json.dumps(reply.body).encode()
        headers = {"Content-Length": str(len(body)), "Content-Type": "text/html" if as_bytes else "application/json"}
        self.send_response(reply.status)
        for name, value in (headers | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
