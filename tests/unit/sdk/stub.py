"""A sequencer that answers each path with the next of its replies; the last one is repeated.

A reply can also be DROP (the connection ends without one), CUT (it ends in the middle of one) or HANG (nothing comes
until the test is over).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.support.scripted_server import Request, Said, ScriptedServer, reply

DROP, CUT, HANG = "drop", "cut", "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """One reply. A body that is not bytes is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def written(self) -> bytes:
        kind = "text/html" if isinstance(self.body, bytes) else "application/json"
        headers = {"Content-Type": kind, **self.headers}
        return reply(self.body, *(f"{name}: {value}" for name, value in headers.items()), status=self.status)


class Stub(ScriptedServer):
    def __init__(self) -> None:
        self._replies: dict[str, list[Say | str]] = {}
        super().__init__()

    def answer(self, path: str, *replies: Say | str | dict[str, Any]) -> None:
        """From now on, `path` answers these, one a request; a dict is a 200 with that JSON."""
        self._replies[path] = [Say(body=reply) if isinstance(reply, dict) else reply for reply in replies]

    def sent(self, path: str) -> list[Any]:
        """The JSON that was sent to this path, in order."""
        return [request.json() for request in self.asked(path)]

    def respond(self, request: Request) -> Said:
        replies = self._replies.get(request.target)
        if not replies:
            return reply({"message": f"no reply was given for {request.target}"}, status=404)
        said = replies.pop(0) if len(replies) > 1 else replies[0]
        if isinstance(said, Say):
            return said.written()
        if said == CUT:
            return iter([reply(b"half", "Content-Length: 8")])
        return iter([30.0]) if said == HANG else None
