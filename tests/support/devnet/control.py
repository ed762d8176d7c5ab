"""The control endpoint `/_devnet`: what was seen, what went wrong, what is to go wrong next.

It is no part of the protocol. It promises that looking changes nothing.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import defaultdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from miner.devnet.consumers import Variation
from miner.devnet.database import transaction
from miner.devnet.options import DetailsForm, Target
from miner.devnet.state import Devnet, devnet_of
from miner.devnet.wire import Name, Refusal, TaskCreate, Timeout, as_json, read_call
from tests.support.devnet.faults import Faults, Rule
from tests.support.devnet.routes import CONTROL, route_of
from tests.support.devnet.traffic import Traffic

VIOLATIONS = """
CREATE TABLE IF NOT EXISTS violations (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, route TEXT NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL,
    miner_id TEXT, task_id TEXT
)
"""
"""A table beside devnet's own ones, so that it survives a kill."""

LISTED = 1000
"""Violations that are listed; all are counted."""

CONTROL_LIMIT = 16 << 20
"""Bytes of a request to control: a test may want a task that no consumer could create."""


class TaskOrder(BaseModel):
    """A task as control creates it: nothing about it is checked, so that a miner can be shown a wrong one."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    task_type: Name
    task_details: Any
    workflow_id: Name | None = None
    timeout_seconds: Timeout | None = None
    consumer_id: Name = "devnet"
    api_key: Name = "devnet"
    target: Target | None = None
    details_form: DetailsForm | None = None
    any_miner: bool = False
    extra: dict[str, Any] = Field(default_factory=dict)


class FaultOrder(BaseModel):
    """Rules to add to those in force."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    rules: list[Rule]


class Control:
    """The endpoints. `traffic` and `faults` are those of the layers around the application."""

    def __init__(self, *, traffic: Traffic, faults: Faults) -> None:
        self._traffic = traffic
        self._faults = faults

    def routes(self) -> list[Route]:
        calls = {
            "stats": {"GET": self.stats},
            "requests": {"GET": self.requests},
            "tasks": {"GET": self.tasks, "POST": self.create},
            "faults": {"GET": self.list_faults, "POST": self.add_faults, "DELETE": self.clear_faults},
            "reset": {"POST": self.reset},
        }
        return [
            Route(f"/_devnet/{name}", call, methods=[method])
            for name, methods in calls.items()
            for method, call in methods.items()
        ]

    async def stats(self, request: Request) -> Response:
        """All counters in one object."""
        devnet = devnet_of(request)
        db = devnet.db
        return JSONResponse(
            {
                "tasks": _counts(db, "SELECT status, count(*) FROM tasks GROUP BY status"),
                "leases": _leases(db),
                "held_requests": devnet.bell.count,
                "answers": _counts(db, "SELECT verdict, count(*) FROM answers GROUP BY verdict"),
                "violations": db.execute("SELECT count(*) FROM violations").fetchone()[0],
                "violation_list": _rows(db, "SELECT * FROM violations ORDER BY seq DESC LIMIT ?", LISTED)[::-1],
                "store": _row(db, "SELECT count(*) AS objects, total(size) AS bytes FROM objects"),
                "faults": self._faults.listed(),
            }
        )

    async def requests(self, request: Request) -> Response:
        """The last requests of a `?route=`, one by one."""
        return JSONResponse({"requests": self._traffic.requests(request.query_params["route"])})

    async def tasks(self, request: Request) -> Response:
        """Every task with its leases and answers and all their times."""
        return JSONResponse({"tasks": _tasks(devnet_of(request).db)})

    async def create(self, request: Request) -> Response:
        """Create a task that no consumer could, or that differs from the options."""
        devnet = devnet_of(request)
        order = await read_call(request, TaskOrder, limit=CONTROL_LIMIT)
        task_id = _insert(devnet, order)
        devnet.bell.ring()
        return JSONResponse({"task_id": task_id})

    async def add_faults(self, request: Request) -> Response:
        self._faults.add((await read_call(request, FaultOrder)).rules)
        return JSONResponse({"faults": self._faults.listed()})

    async def list_faults(self, request: Request) -> Response:  # noqa: ARG002  an endpoint's signature
        return JSONResponse({"faults": self._faults.listed()})

    async def clear_faults(self, request: Request) -> Response:  # noqa: ARG002  an endpoint's signature
        self._faults.clear()
        return JSONResponse({"faults": []})

    async def reset(self, request: Request) -> Response:
        """Forget tasks, objects, counters and faults."""
        devnet = devnet_of(request)
        with transaction(devnet.db):
            for table in ("tasks", "leases", "miners", "answers", "violations", "objects"):
                devnet.db.execute(f"DELETE FROM {table}")  # noqa: S608  the names are the line above
        devnet.blobs.sweep()
        devnet.bell.ring()
        self._traffic.clear()
        self._faults.clear()
        return JSONResponse({"msg": "empty"})


def record_violation(request: Request, refusal: Refusal) -> None:
    """Keep what was refused and why."""
    devnet, state = devnet_of(request), request.scope["state"]
    route = route_of(request.method, request.url.path)
    if route == CONTROL:
        return
    devnet.db.execute(
        "INSERT INTO violations (at, route, status, reason, miner_id, task_id) VALUES (?, ?, ?, ?, ?, ?)",
        (devnet.clock(), route, refusal.status, refusal.message, state.get("miner_id"), state.get("task_id")),
    )


def _insert(devnet: Devnet, order: TaskOrder) -> str:
    call = TaskCreate.model_construct(
        consumer_id=order.consumer_id,
        api_key=order.api_key,
        task_type=order.task_type,
        job_id=f"devnet-{secrets.token_hex(5)}",
        workflow_id=order.workflow_id,
        timeout_seconds=order.timeout_seconds,
    )
    variation = Variation(
        target=order.target, details_form=order.details_form, any_miner=order.any_miner, extra=order.extra
    )
    return devnet.consumers.insert(call, as_json(order.task_details), variation)


def _tasks(db: sqlite3.Connection) -> list[dict[str, Any]]:
    leases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(
        db, "SELECT task_id, miner_id, key, leased_at, deadline, ended_at, ended FROM leases ORDER BY seq"
    ):
        leases[row.pop("task_id")].append(row)
    answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(db, "SELECT task_id, at, miner_id, verdict, body FROM answers ORDER BY seq"):
        answers[row.pop("task_id")].append(row | {"body": json.loads(row["body"])})
    tasks = _rows(
        db,
        "SELECT task_id, status, consumer_id, job_id, task_type, workflow_id, timeout, target, created_at, ended_at,"
        " result, msg, inference_latency, upload_latency FROM tasks ORDER BY seq",
    )
    return [
        task
        | {
            "leased_at": next((lease["leased_at"] for lease in leases[task["task_id"]]), None),
            "answered_at": next((a["at"] for a in answers[task["task_id"]] if a["verdict"] == "first"), None),
            "leases": leases[task["task_id"]],
            "answers": answers[task["task_id"]],
        }
        for task in tasks
    ]


def _leases(db: sqlite3.Connection) -> dict[str, Any]:
    """How many are open, and how the others ended."""
    ended = _counts(db, "SELECT ended, count(*) FROM leases WHERE ended IS NOT NULL GROUP BY ended")
    return {"open": db.execute("SELECT count(*) FROM leases WHERE ended_at IS NULL").fetchone()[0], "ended": ended}


def _counts(db: sqlite3.Connection, query: str) -> dict[str, int]:
    return {row[0]: row[1] for row in db.execute(query)}


def _row(db: sqlite3.Connection, query: str) -> dict[str, Any]:
    return dict(db.execute(query).fetchone())


def _rows(db: sqlite3.Connection, query: str, *values: int) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(query, values)]
