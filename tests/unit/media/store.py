"""An object store over real sockets: `PUT` of whole objects, S3's multipart uploads, and knobs for what it answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from tests.support.scripted_server import Request, Said, ScriptedServer, reply

MULTIPART = (
    b'<?xml version="1.0"?><InitiateMultipartUploadResult><UploadId>one</UploadId></InitiateMultipartUploadResult>'
)
COMPLETED = b'<?xml version="1.0"?><CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>'


@dataclass(slots=True)
class Knobs:
    """What it answers: `status` to the first `failures` requests (None: to all), and `headers` with it."""

    status: int = 200
    failures: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"<Error><Code>TopSecret</Code></Error>"


class Store(ScriptedServer):
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[int, bytes] = {}
        self.knobs = Knobs()
        super().__init__()

    def failing(self) -> bool:
        return self.knobs.status >= 300 and (self.knobs.failures is None or len(self.requests) <= self.knobs.failures)

    def respond(self, request: Request) -> Said:
        if self.failing():
            headers = [f"{name}: {value}" for name, value in self.knobs.headers.items()]
            return reply(self.knobs.body, *headers, status=self.knobs.status)
        key = unquote(request.path)
        if request.method == "POST" and request.query.startswith("uploads"):
            return reply(MULTIPART)
        if request.method == "POST":
            self.objects[key] = b"".join(self.parts[number] for number in sorted(self.parts))
            return reply(COMPLETED)
        if part := re.search(r"partNumber=(\d+)", request.query):
            self.parts[int(part[1])] = request.body
            return reply(b"", 'ETag: "part"')
        if request.method == "PUT":
            self.objects[key] = request.body
        return reply(b"", 'ETag: "whole"', status=self.knobs.status if self.knobs.status < 300 else 200)
