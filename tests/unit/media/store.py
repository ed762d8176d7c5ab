"""An object store over real sockets: `PUT` of whole objects, S3's multipart uploads, and knobs for what it answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

MULTIPART = (
    '<?xml version="1.0"?><InitiateMultipartUploadResult><UploadId>one</UploadId></InitiateMultipartUploadResult>'
)
COMPLETED = '<?xml version="1.0"?><CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it came."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    size: int


@dataclass(slots=True)
class Knobs:
    """What it answers: `status` to the first `failures` requests (None: to all), and `headers` with it."""

    status: int = 200
    failures: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"<Error><Code>TopSecret</Code></Error>"
    discard: bool = False  # counts the bytes of a body and forgets them
    hang: bool = False  # never reads a body, never answers


class Store:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.objects: dict[str, bytes] = {}
        self.parts: dict[int, bytes] = {}
        self.connections = 0
        self.knobs = Knobs()
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.store = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def failing(self) -> bool:
        return self.knobs.status >= 300 and (self.knobs.failures is None or len(self.calls) <= self.knobs.failures)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    store: Store

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is what some tests are about."""

    def process_request(self, request: Any, client_address: Any) -> None:
        self.store.connections += 1
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        store = self.server.store
        size = int(self.headers.get("Content-Length") or 0)
        if store.knobs.hang:
            store.stopping.wait(60)
            self.close_connection = True
            return
        body = b"" if store.knobs.discard else self.rfile.read(size)
        received = self._discard(size) if store.knobs.discard else len(body)
        if received < size:  # the client hung up
            self.close_connection = True
            return
        store.calls.append(Call(method=self.command, path=self.path, headers=dict(self.headers.items()), size=received))
        if store.failing():
            self._reply(store.knobs.status, store.knobs.body, store.knobs.headers)
        else:
            self._take(store, body)

    def _discard(self, size: int) -> int:
        left = size
        while left and (block := self.rfile.read(min(left, 65536))):
            left -= len(block)
        return size - left

    def _take(self, store: Store, body: bytes) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path)
        if self.command == "POST" and url.query.startswith("uploads"):
            self._reply(200, MULTIPART.encode(), {})
        elif self.command == "POST":
            store.objects[key] = b"".join(store.parts[number] for number in sorted(store.parts))
            self._reply(200, COMPLETED.encode(), {})
        elif part := re.search(r"partNumber=(\d+)", url.query):
            store.parts[int(part[1])] = body
            self._reply(200, b"", {"ETag": '"part"'})
        else:
            if self.command == "PUT":
                store.objects[key] = body
            success = store.knobs.status if store.knobs.status < 300 else 200
            self._reply(success, b"", {"ETag": '"whole"'})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_DELETE = do_GET = _handle  # noqa: N815  # the base class's names

    def log_message(self, *_: object) -> None:
        pass
