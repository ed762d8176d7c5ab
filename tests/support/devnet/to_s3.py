"""The way to a real S3, through devnet: so that faults, counters and violations hold for its requests too.

A request goes on as it came, with its `Host`, so that its signature stays good. What a strict store adds: an object
belongs to a task, and does not change once that task is answered.
"""

from __future__ import annotations

import asyncio

import requests
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from miner.devnet.state import devnet_of
from miner.devnet.wire import Refusal
from tests.support.devnet.routes import BUCKET

_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


def s3_routes(url: str) -> list[Route]:
    session = requests.Session()
    session.trust_env = False

    async def forward(request: Request) -> Response:
        if request.method in ("PUT", "POST"):
            _check_open(request)
        query = f"?{request.url.query}" if request.url.query else ""
        target = f"{url}{request.scope['raw_path'].decode('ascii')}{query}"
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        body = await request.body()
        reply = await asyncio.to_thread(session.request, request.method, target, data=body, headers=headers, timeout=30)
        if 400 <= reply.status_code < 500:
            raise Refusal(reply.status_code, f"S3 refused it: {reply.text}", counted=reply.status_code != 404)
        passed = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Response(reply.content, reply.status_code, headers=passed)

    return [Route(f"/{BUCKET}/{{key:path}}", forward, methods=["PUT", "POST", "GET", "DELETE"])]


def _check_open(request: Request) -> None:
    """Raises Refusal: 403 for the key of no leased task, 409 once it is answered."""
    devnet, key = devnet_of(request), request.path_params["key"]
    task_id = key.rpartition(".")[0].rpartition("-")[2]
    if devnet.db.execute("SELECT 1 FROM leases WHERE task_id = ?", (task_id,)).fetchone() is None:
        raise Refusal(403, f"{key} is not the key of a leased task")
    devnet.targets.refuse_if_answered(task_id)
