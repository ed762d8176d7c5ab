"""Counts every request: which route, when, how long, with what end.

It promises that nothing is counted twice and that memory is bounded. The counts are of this process; what is counted
for good (answers, violations) is in the database.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
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


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What is counted of one route; times are Unix seconds."""

    first: float
    last: float
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, seen: Seen) -> None:
        self.first, self.last = min(self.first, seen.at), max(self.last, seen.at)
        self.statuses[seen.status] += 1

    def summary(self) -> dict[str, Any]:
        count, span = self.statuses.total(), self.last - self.first
        return {
            "count": count,
            "statuses": {str(status): times for status, times in sorted(self.statuses.items())},
            "per_second": (count - 1) / span if span > 0 else 0.0,
        }


class Traffic:
    """What was asked of this process; control's own requests are not counted."""

    def __init__(self) -> None:
        self._seen: deque[Seen] = deque(maxlen=KEPT)
        self._routes: dict[str, _Tally] = {}

    def add(self, seen: Seen) -> None:
        self._seen.append(seen)
        self._routes.setdefault(seen.route, _Tally(first=seen.at, last=seen.at)).add(seen)

    def clear(self) -> None:
        self._seen.clear()
        self._routes.clear()

    def requests(self, route: str | None) -> list[dict[str, Any]]:
        """The requests that are remembered, of one route or of all, in the order in which they ended."""
        return [asdict(seen) for seen in self._seen if route in (None, seen.route)]

    def by_route(self) -> dict[str, dict[str, Any]]:
        """For each route: `count`, `statuses`, and the mean `per_second` from the first to the last."""
        return {route: tally.summary() for route, tally in sorted(self._routes.items())}


class Recording:
    """The ASGI layer that counts."""

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
