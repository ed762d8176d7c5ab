"""An object store over real sockets that records each request, with knobs for what it answers.

It takes `PUT` of whole objects; what is signed for S3 goes on, unchanged, to a real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

import requests

from tests.support.s3 import running_s3
from tests.support.scripted_server import Request, Said, ScriptedServer, reply


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
        self.knobs = Knobs()
        super().__init__()

    def failing(self) -> bool:
        return self.knobs.status >= 300 and (self.knobs.failures is None or len(self.requests) <= self.knobs.failures)

    def respond(self, request: Request) -> Said:
        if self.failing():
            headers = [f"{name}: {value}" for name, value in self.knobs.headers.items()]
            return reply(self.knobs.body, *headers, status=self.knobs.status)
        if "Authorization" in request.headers:
            return _said_by_s3(request)
        if request.method == "PUT":
            self.objects[unquote(request.path)] = request.body
        return reply(b"", 'ETag: "whole"', status=self.knobs.status if self.knobs.status < 300 else 200)


def _said_by_s3(request: Request) -> bytes:
    url, headers = running_s3().url + request.target, dict(request.headers.items())
    with requests.Session() as session:
        session.trust_env = False
        said = session.request(request.method, url, headers=headers, data=request.body, timeout=30)
    etag = [f"ETag: {said.headers['ETag']}"] if "ETag" in said.headers else []
    return reply(said.content, *etag, status=said.status_code)
