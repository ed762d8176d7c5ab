"""Notes every request: which route, when, how long, with what end. Memory is bounded."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.devnet.routes import CONTROL, route_of

KEPT = 50_000
"""Requests that are remembered one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request. `at` is Unix seconds; `status` is 0 where no reply was begun."""

    at: float
    seconds: float
    route: str
    status: int
    miner_id: str | None = None
    fault: str | None = None


class Traffic:
    """What was asked of this process; control's own requests are not noted."""

    def __init__(self) -> None:
        self._seen: deque[Seen] = deque(maxlen=KEPT)

    def add(self, seen: Seen) -> None:
        self._seen.append(seen)

    def clear(self) -> None:
        self._seen.clear()

    def requests(self, route: str) -> list[dict[str, Any]]:
        """The requests of one route that are remembered, in the order in which they ended."""
        return [asdict(seen) for seen in self._seen if route == seen.route]


class Recording:
    """The ASGI layer that notes."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = route_of(scope["method"], scope["path"]) if scope["type"] == "http" else CONTROL
        if route == CONTROL:
            await self._app(scope, receive, send)
            return
        at, started, status = time.time(), time.perf_counter(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            state, seconds = scope["state"], time.perf_counter() - started
            miner_id, fault = state.get("miner_id"), state.get("fault")
            self._traffic.add(Seen(at=at, seconds=seconds, route=route, status=status, miner_id=miner_id, fault=fault))
