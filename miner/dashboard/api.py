"""The HTTP endpoints: JSON, thumbnails, metrics, and pause, resume, drain.

Blocking reads run in the readers' thread, so that no request delays an event stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, cast, get_args

import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from miner.comfy.events import Preview
from miner.dashboard import checks, gauges, snapshot
from miner.dashboard.events import Hub, Topic, as_json
from miner.dashboard.history import Outcome
from miner.dashboard.view import View
from miner.task.errors import MachineFault
from miner.telemetry.health import Mark

PAGE = 30  # tasks per page of the history
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

T = TypeVar("T")

log = structlog.get_logger()


class Api:
    """The endpoints over one view."""

    def __init__(self, view: View, *, readers: Executor) -> None:
        self._view = view
        self._readers = readers
        self._shown: dict[str, tuple[Preview | None, str]] = {}  # lane → its preview, and its data: URL
        self.hub = Hub(self._topics(), readers=readers)

    def routes(self) -> list[Route]:
        return [
            Route("/api/now", self.now),
            Route("/api/past", self.past),
            Route("/api/history", self.history),
            Route("/api/workflows", self.workflows),
            Route("/api/health", self.health),
            Route("/api/events", self.events),
            Route("/api/thumbnail", self.thumbnail),
            *(Route(f"/api/{action}", self.act, methods=["POST"]) for action in ("pause", "resume", "drain")),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]

    async def now(self, _request: Request) -> Response:
        return _json(await self._read(self._view.now))

    async def past(self, _request: Request) -> Response:
        return _json(await self._read(self._view.past))

    async def history(self, request: Request) -> Response:
        asked = request.query_params
        outcome, before = asked.get("outcome"), asked.get("before")
        if outcome is not None and outcome not in OUTCOMES:
            return JSONResponse({"message": f"outcome must be one of {', '.join(OUTCOMES)}"}, 400)
        try:
            until = float(before) if before is not None else None
        except ValueError:
            return JSONResponse({"message": "before must be a number of seconds"}, 400)
        rows = await self._read(
            lambda: self._view.history.last(
                limit=PAGE + 1,
                outcome=outcome,
                workflow=asked.get("workflow"),
                before=until,
            )
        )
        return _json({"tasks": rows[:PAGE], "more": len(rows) > PAGE})

    async def workflows(self, _request: Request) -> Response:
        return _json(await self._read(self._view.workflows))

    async def health(self, _request: Request) -> Response:
        return _json(await self._read(self._view.health))

    async def thumbnail(self, request: Request) -> Response:
        asked = request.query_params
        picture = await self._read(lambda: self._view.history.thumbnail(asked.get("miner", ""), asked.get("task", "")))
        if picture is None:
            return JSONResponse({"message": "no thumbnail of that task"}, 404)
        return Response(picture, media_type="image/webp", headers={"Cache-Control": "private, max-age=604800"})

    async def events(self, _request: Request) -> Response:
        if self.hub.full:
            return JSONResponse({"message": "too many open pages; close some"}, 503)
        return StreamingResponse(self.hub.watch(), media_type="text/event-stream")

    async def act(self, request: Request) -> Response:
        controls = self._view.controls
        {"pause": controls.pause, "resume": controls.resume, "drain": controls.drain}[request.url.path[5:]]()
        return await self.now(request)

    async def healthz(self, _request: Request) -> Response:
        inputs = await self._read(self._view.health_inputs)
        return _probe(checks.is_alive(inputs), checks.alive(inputs))

    async def readyz(self, _request: Request) -> Response:
        inputs = await self._read(self._view.health_inputs)
        return _probe(checks.is_ready(inputs), checks.ready(inputs))

    async def metrics(self, _request: Request) -> Response:
        return Response(await self._read(lambda: gauges.exposition(self._view)), media_type=CONTENT_TYPE_LATEST)

    async def _read(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    # ---- the event stream -------------------------------------------------------------------------

    def _topics(self) -> list[Topic]:
        view = self._view
        return [
            Topic(every=0.25, read=lambda: {"now": view.now()}),
            Topic(every=0.25, read=self._previews),
            Topic(every=1.0, read=lambda: {"past": view.past()}),
            Topic(every=2.0, read=lambda: {"workflows": view.workflows()}),
            Topic(every=2.0, read=lambda: {"health": view.health()}),
            Topic(every=5.0, read=lambda: {"cards": view.cards()}),
        ]

    def _previews(self) -> Mapping[str, object]:
        self._view.controls.audience.seen()
        for lane, preview in snapshot.previews(self._view.controls.lanes).items():
            if lane not in self._shown or self._shown[lane][0] is not preview:
                self._shown[lane] = (preview, snapshot.data_url(preview) if preview else "")
        return {f"preview:{lane}": {"lane": lane, "src": url} for lane, (_, url) in self._shown.items()}


async def journal_unreadable(_request: Request, error: Exception) -> Response:
    """The reply when the journal cannot be read."""
    fault = cast("MachineFault", error)
    return JSONResponse({"message": fault.message, "hint": fault.hint}, 503)


async def bug(request: Request, error: Exception) -> Response:
    """The reply after a bug; the log has the traceback."""
    log.error("dashboard_bug", path=request.url.path, exc_info=error, next="other pages and the miner continue")
    return JSONResponse({"message": "internal error; see dashboard_bug in the miner's log"}, 500)


def _json(value: Any) -> Response:
    return Response(as_json(value), media_type="application/json")


def _probe(fine: bool, marks: tuple[Mark, ...]) -> Response:
    body = {"ok": fine, "reasons": [mark for mark in marks if mark.level == "bad"], "checks": marks}
    return Response(as_json(body), 200 if fine else 503, media_type="application/json")
