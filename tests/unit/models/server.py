"""A file server on loopback that misbehaves on demand and counts what it sends, and one shaped like Hugging Face.

Each file has a script: what to do to the next GETs, one step each; after its end the server behaves. `sent` counts the
bytes of bodies, so that what is fetched twice shows.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PIECE = 1 << 16  # bytes a send


@dataclass(slots=True, kw_only=True)
class Step:
    """What happens to one GET. Everything is off by default."""

    cut: int | None = None  # end the connection after so many bytes of the body
    status: int | None = None  # answer this, without a body
    headers: dict[str, str] = field(default_factory=dict)  # more of them, or others
    length: int | None = None  # the Content-Length that is claimed
    content: bytes | None = None  # from now on the file is this
    etag: str | None = None  # and this its ETag
    no_range: bool = False  # answer 200 with all of it, whatever is asked
    no_condition: bool = False  # take no notice of If-Range
    chunked: bool = False  # with no length
    endless: bool = False  # no length at all: the end of the connection is the end of the file
    trickle: int | None = None  # send so many bytes at a time, with a pause
    hold: threading.Event | None = None  # send half, and the rest once this is set


@dataclass(slots=True)
class File:
    content: bytes
    etag: str = ""
    modified: str = ""
    ranges: bool = True
    script: list[Step] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Request:
    method: str
    path: str
    query: str
    headers: Message
    at: float  # time.monotonic()


class FileServer:
    """The server. `put` files, then read `requests` and `sent`."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.files: dict[str, File] = {}
        self.requests: list[Request] = []
        self.sent: dict[str, int] = {}
        self.half = threading.Event()  # a held step has sent its half
        self.mutex = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = False  # so that closing waits for them
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, path: str, content: bytes, *script: Step, etag: str | None = None, **rest: object) -> str:
        """Serve `content` at `path`; gives its URL."""
        tag = f'"{hashlib.md5(content).hexdigest()}"' if etag is None else etag  # noqa: S324
        self.files[path] = File(content, etag=tag, script=list(script), **rest)  # type: ignore[arg-type]
        return self.url + path

    def gets(self, path: str) -> list[Request]:
        return [one for one in self.requests if one.method == "GET" and one.path == path]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        parts = urlsplit(handler.path)
        asked = Request(
            method=handler.command, path=parts.path, query=parts.query, headers=handler.headers, at=time.monotonic()
        )
        with self.mutex:
            self.requests.append(asked)
            file = self.files.get(parts.path)
            step = file.script.pop(0) if file and file.script and asked.method == "GET" else Step()
        if file is None:
            self.reply(handler, 404, {})
        else:
            self._serve(handler, asked, file, step)

    def reply(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {"Connection": "close", "Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    def _serve(self, handler: BaseHTTPRequestHandler, asked: Request, file: File, step: Step) -> None:
        if step.content is not None:
            file.content = step.content
            file.etag = step.etag if step.etag is not None else f'"{hashlib.md5(step.content).hexdigest()}"'  # noqa: S324
        if step.status is not None:
            self.reply(handler, step.status, step.headers)
            return
        start = self._start(asked, file, step)
        if start > len(file.content) or (start and start == len(file.content)):
            self.reply(handler, 416, {"Content-Range": f"bytes */{len(file.content)}"})
            return
        body = file.content[start:]
        headers = {"ETag": file.etag, "Last-Modified": file.modified, "Content-Length": str(step.length or len(body))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        if step.chunked or step.endless:
            headers["Content-Length"] = ""
        if step.chunked:
            headers["Transfer-Encoding"] = "chunked"
        headers |= step.headers
        handler.send_response(206 if start else 200)
        for name, value in {"Connection": "close", **headers}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        if asked.method == "GET":
            self._send(handler, asked.path, body if step.cut is None else body[: step.cut], step)

    def _start(self, asked: Request, file: File, step: Step) -> int:
        """Where the answer begins: at the range's first byte, if there is one and its condition holds."""
        span = asked.headers.get("Range", "")
        if not span or not file.ranges or step.no_range:
            return 0
        condition = asked.headers.get("If-Range")
        if condition and not step.no_condition and condition not in (file.etag, file.modified):
            return 0
        return int(span.removeprefix("bytes=").partition("-")[0])

    def _send(self, handler: BaseHTTPRequestHandler, path: str, body: bytes, step: Step) -> None:
        try:
            for at in range(0, len(body), step.trickle or PIECE):
                piece = body[at : at + (step.trickle or PIECE)]
                if step.hold and at <= len(body) // 2 < at + len(piece):
                    self.half.set()
                    step.hold.wait(30)
                if step.trickle:
                    threading.Event().wait(0.001)
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if step.chunked else piece)
                with self.mutex:
                    self.sent[path] = self.sent.get(path, 0) + len(piece)
            if step.chunked and step.cut is None:
                handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            return  # the client went away, which some tests are about


class HubServer(FileServer):
    """Shaped like Hugging Face: `resolve` answers with headers about a file, and an address on another host."""

    def __init__(self, cdn: FileServer) -> None:
        super().__init__()
        self.cdn = cdn
        self.gated: set[str] = set()  # repositories
        self.busy: list[dict[str, str]] = []  # headers of the next answers, which are 429
        self.tokens: list[str] = []  # what came as Authorization, if anything

    def publish(self, repo: str, path: str, content: bytes, *script: Step) -> str:
        """Put a file there; gives its address at the real Hugging Face, as a manifest has it."""
        blob = f"/{repo}/{path}"
        self.cdn.put(blob, content, *script, etag='"of-the-store"')
        self.put(f"/{repo}/resolve/main/{path}", content)
        return f"https://huggingface.co/{repo}/resolve/main/{path}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        path = urlsplit(handler.path).path
        repo = "/".join(path.split("/")[1:3])
        token = handler.headers.get("Authorization", "")
        with self.mutex:
            asked = Request(method=handler.command, path=path, query="", headers=handler.headers, at=time.monotonic())
            self.requests.append(asked)
            if "/resolve/" in path:  # the library asks for other things, too
                self.tokens.append(token)
            busy = self.busy.pop(0) if self.busy and "/resolve/" in path else None
        if busy is not None:
            self.reply(handler, 429, busy)
        elif repo in self.gated and token != "Bearer hf_accepted":
            self.reply(handler, 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif path not in self.files:
            known = any(other.startswith(f"/{repo}/") for other in self.files)
            self.reply(handler, 404, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})
        else:
            self._point(handler, path)

    def _point(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        content = self.files[path].content
        blob = path.replace("/resolve/main/", "/")
        self.reply(
            handler,
            302,
            {
                "Location": f"{self.cdn.url}{blob}?X-Signature=s3cret",
                "X-Repo-Commit": "0" * 40,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            },
        )


@contextmanager
def files(host: str = "127.0.0.1") -> Iterator[FileServer]:
    server = FileServer(host)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def hub() -> Iterator[HubServer]:
    with files("127.0.0.2") as cdn:  # another host than the hub, as in the world
        server = HubServer(cdn)
        try:
            yield server
        finally:
            server.close()
