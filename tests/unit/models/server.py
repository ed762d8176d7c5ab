"""A file server on loopback that misbehaves on demand and counts what it sends, and one shaped like Hugging Face.

Each file has a script: what to do to the next GETs, one step each; after its end the server behaves. `sent` counts the
bytes of bodies, so that what is fetched twice shows.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.support.scripted_server import Request, ScriptedServer, head

PIECE = 1 << 16  # bytes a send


@dataclass(slots=True, kw_only=True)
class Step:
    """What happens to one GET. Everything is off by default."""

    cut: int | None = None  # close the connection after so many bytes of the body
    status: int | None = None  # answer this, without a body
    headers: dict[str, str] = field(default_factory=dict)  # added or replaced
    length: int | None = None  # the claimed Content-Length
    content: bytes | None = None  # from now on the file is this
    etag: str | None = None  # and this its ETag
    no_range: bool = False  # answer 200 and the whole file
    no_condition: bool = False  # ignore If-Range
    chunked: bool = False  # without a length
    endless: bool = False  # without a length: the file ends with the connection
    trickle: int | None = None  # send so many bytes at a time, with a pause
    hold: threading.Event | None = None  # send half, and the rest once this is set


@dataclass(slots=True)
class File:
    content: bytes
    etag: str = ""
    modified: str = ""
    ranges: bool = True
    script: list[Step] = field(default_factory=list)


class FileServer(ScriptedServer):
    """`put` files, then read `requests` and `sent`."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.files: dict[str, File] = {}
        self.sent: Counter[str] = Counter()
        self.half = threading.Event()  # a held step has sent its half
        super().__init__(host=host)

    def put(self, path: str, content: bytes, *script: Step, etag: str | None = None, **rest: object) -> str:
        """Serve `content` at `path`; returns its URL."""
        tag = etag_of(content) if etag is None else etag
        self.files[path] = File(content, etag=tag, script=list(script), **rest)  # type: ignore[arg-type]
        return self.url + path

    def gets(self, path: str) -> list[Request]:
        return self.asked(path, "GET")

    def respond(self, request: Request) -> Iterator[bytes]:
        file = self.files.get(request.path)
        if file is None:
            yield closing(404)
            return
        step = file.script.pop(0) if file.script and request.method == "GET" else Step()
        if step.content is not None:
            file.content = step.content
            file.etag = step.etag if step.etag is not None else etag_of(step.content)
        if step.status is not None:
            yield closing(step.status, step.headers)
            return
        start = self._start(request, file, step)
        if start > len(file.content) or (start and start == len(file.content)):
            yield closing(416, {"Content-Range": f"bytes */{len(file.content)}"})
            return
        body = file.content[start:]
        headers = {"ETag": file.etag, "Last-Modified": file.modified, "Content-Length": str(step.length or len(body))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        if step.chunked or step.endless:
            headers["Content-Length"] = ""
        if step.chunked:
            headers["Transfer-Encoding"] = "chunked"
        yield closing(206 if start else 200, headers | step.headers, length="")
        if request.method == "GET":
            yield from self._send(request.path, body if step.cut is None else body[: step.cut], step)

    def _start(self, asked: Request, file: File, step: Step) -> int:
        """First byte of the reply: the range's, if requested and its condition holds."""
        span = asked.headers.get("Range", "")
        if not span or not file.ranges or step.no_range:
            return 0
        condition = asked.headers.get("If-Range")
        if condition and not step.no_condition and condition not in (file.etag, file.modified):
            return 0
        return int(span.removeprefix("bytes=").partition("-")[0])

    def _send(self, path: str, body: bytes, step: Step) -> Iterator[bytes]:
        for at in range(0, len(body), step.trickle or PIECE):
            piece = body[at : at + (step.trickle or PIECE)]
            if step.hold and at <= len(body) // 2 < at + len(piece):
                self.half.set()
                step.hold.wait(30)
            if step.trickle:
                self.stopping.wait(0.001)
            yield b"%x\r\n%s\r\n" % (len(piece), piece) if step.chunked else piece
            self.sent[path] += len(piece)
        if step.chunked and step.cut is None:
            yield b"0\r\n\r\n"


class HubServer(FileServer):
    """Shaped like Hugging Face: `resolve` answers with headers of a file and a redirect to another host."""

    def __init__(self, cdn: FileServer) -> None:
        super().__init__()
        self.cdn = cdn
        self.gated: set[str] = set()  # repositories
        self.busy: list[dict[str, str]] = []  # headers of the next answers, which are 429
        self.tokens: list[str] = []  # Authorization headers

    def publish(self, repo: str, path: str, content: bytes, *script: Step) -> str:
        """Add a file; returns its URL at the real Hugging Face, as in a manifest."""
        blob = f"/{repo}/{path}"
        self.cdn.put(blob, content, *script, etag='"of-the-store"')
        self.put(f"/{repo}/resolve/main/{path}", content)
        return f"https://huggingface.co/{repo}/resolve/main/{path}"

    def respond(self, request: Request) -> Iterator[bytes]:
        path, token = request.path, request.headers.get("Authorization", "")
        repo = "/".join(path.split("/")[1:3])
        resolves = "/resolve/" in path  # the library sends other requests too
        if resolves:
            self.tokens.append(token)
        if resolves and self.busy:
            yield closing(429, self.busy.pop(0))
        elif repo in self.gated and token != "Bearer hf_accepted":
            yield closing(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif path not in self.files:
            known = any(other.startswith(f"/{repo}/") for other in self.files)
            yield closing(404, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})
        else:
            content = self.files[path].content
            facts = {
                "Location": f"{self.cdn.url}{path.replace('/resolve/main/', '/')}?X-Signature=s3cret",
                "X-Repo-Commit": "0" * 40,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            }
            yield closing(302, facts)


def closing(status: int, headers: Mapping[str, str] = MappingProxyType({}), *, length: str = "0") -> bytes:
    """The head of a reply after which the connection ends; headers without a value are left out."""
    given = {"Connection": "close", "Content-Length": length, **headers}
    return head(status, *(f"{name}: {value}" for name, value in given.items() if value))


def etag_of(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'  # noqa: S324


@contextmanager
def hub() -> Iterator[HubServer]:
    with FileServer("127.0.0.2") as cdn, HubServer(cdn) as hub:  # not the hub's host, as in reality
        yield hub
