"""The six calls of the protocol over HTTP, both sides.

A held request leases nothing once its client is gone, as far as this machine can know. It ends at once when a task
arrives, when a task was taken away, and when devnet stops.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from miner.devnet.connection import connection_of
from miner.devnet.sequencer import Leased
from miner.devnet.state import Devnet, devnet_of
from miner.devnet.store import base_url
from miner.devnet.wire import (
    MinerRequest,
    MinerSubmit,
    ResourceRequest,
    TaskCancel,
    TaskCreate,
    TaskQuery,
    preferred_wait,
    read_call,
)


async def resource_request(request: Request) -> Response:
    """Which miner could take a task now."""
    call = await read_call(request, ResourceRequest)
    return JSONResponse({"miner_id": devnet_of(request).consumers.find_miner(call), "msg": ""})


async def task_create(request: Request) -> Response:
    """Create a task."""
    devnet = devnet_of(request)
    task_id = devnet.consumers.create(await read_call(request, TaskCreate))
    devnet.bell.ring()
    return JSONResponse({"task_id": task_id})


async def task_result_query(request: Request) -> Response:
    """How a task stands; its result is a URL if it is in devnet's own store, and else a key in the network's."""
    devnet = devnet_of(request)
    call = await read_call(request, TaskQuery)
    devnet.expire()
    reply = devnet.consumers.query(call)
    bucket, key = devnet.options.bucket, reply.get("result", "")
    if isinstance(key, str) and devnet.blobs.find(bucket, key):
        expires = devnet.clock() + devnet.options.upload_ttl
        reply["result"] = {"url": devnet.targets.sign("GET", bucket, key, expires=expires, base_url=base_url(request))}
    return JSONResponse(reply)


async def task_cancel(request: Request) -> Response:
    """Cancel a task, whether it waits or runs."""
    devnet = devnet_of(request)
    call = await read_call(request, TaskCancel)
    devnet.expire()
    msg = devnet.consumers.cancel(call)
    devnet.bell.ring()
    return JSONResponse({"task_id": call.task_id, "msg": msg})


async def miner_submit(request: Request) -> Response:
    """Take an answer."""
    devnet = devnet_of(request)
    call = await read_call(request, MinerSubmit)
    request.state.miner_id, request.state.task_id = call.miner_id, call.task_id
    devnet.expire()
    verdict = devnet.sequencer.submit(call)
    devnet.bell.ring()
    told = {"first": "", "repeat": "answered before", "late": "the task was taken away; this does not count"}
    return JSONResponse({"task_id": call.task_id, "msg": told[verdict]})


async def miner_request(request: Request) -> Response:
    """Lease a task, or say what is running, or that no task is available; may wait first."""
    devnet = devnet_of(request)
    call = await read_call(request, MinerRequest)
    request.state.miner_id = call.erc20_address
    wanted = preferred_wait(request.headers.get("prefer"))
    # A heartbeat that wants no task has nothing to wait for.
    wait = min(wanted, int(devnet.options.max_wait)) if devnet.options.wait and call.workflow_ids else 0
    leased = await _lease(devnet, request, call, wait)
    headers = {"preference-applied": f"wait={wait}"} if wait else {}
    return _reply(devnet, request, call.erc20_address, leased, headers)


async def _lease(devnet: Devnet, request: Request, call: MinerRequest, wait: int) -> Leased | None:
    """A task, as soon as one is available. None: the wait is over, or the miner has news of a lost task."""
    loop, miner_id = asyncio.get_running_loop(), call.erc20_address
    deadline = loop.time() + wait
    devnet.expire()
    devnet.sequencer.hear(call)
    async with _held(devnet, request, miner_id) as woken:
        while True:
            woken.clear()
            if connection_of(request.scope).gone():
                raise ClientDisconnect
            leased = devnet.sequencer.lease(miner_id, call.workflow_ids)
            left = deadline - loop.time()
            if leased or devnet.sequencer.has_news(miner_id) or left <= 0 or devnet.bell.stopping.is_set():
                devnet.sequencer.hear(call)
                return leased
            await _wait_for(woken, left)


@asynccontextmanager
async def _held(devnet: Devnet, request: Request, miner_id: str) -> AsyncIterator[asyncio.Event]:
    """Hold a request: the event is set when there may be news, and when its client goes away."""

    async def watch_client(woken: asyncio.Event) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        woken.set()

    with devnet.bell.hold(miner_id) as woken:
        watching = asyncio.create_task(watch_client(woken))
        try:
            yield woken
        finally:
            watching.cancel()


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _reply(devnet: Devnet, request: Request, miner_id: str, leased: Leased | None, headers: dict[str, str]) -> Response:
    canceled = devnet.sequencer.tell(miner_id)
    also: dict[str, Any] = {"canceled": list(canceled)} if canceled and devnet.options.name_canceled else {}
    if leased is not None:
        return JSONResponse(_task(devnet, leased, base_url(request)) | also, headers=headers)
    held = devnet.sequencer.held(miner_id)
    if held:
        return JSONResponse({"task_id": held[0], "msg": "the task is already running", **also}, headers=headers)
    if devnet.options.nothing == "204" and not also:
        return Response(status_code=204, headers=headers)
    nothing = {"task_id": None} if devnet.options.nothing == "null" else {}
    return JSONResponse({**nothing, "msg": "no task for these workflows", **also}, headers=headers)


def _task(devnet: Devnet, leased: Leased, base: str) -> dict[str, Any]:
    """The reply that hands out a task."""
    reply: dict[str, Any] = {
        "task_id": leased.task_id,
        "task_type": leased.task_type,
        "workflow_id": leased.workflow_id,
        "miner_id": leased.miner_id,
        "task_details": _details(leased),
        **devnet.targets.fields(leased, base_url=base),
    }
    if leased.timeout is not None:
        reply["timeout_seconds"] = leased.timeout
    reply.update(json.loads(leased.extra))
    return reply


def _details(leased: Leased) -> Any:
    if leased.details_form == "string":
        return leased.details
    details = json.loads(leased.details)
    if leased.details_form == "prompt":
        prompt = details["parameters"].get("prompt")
        return {"prompt": prompt} if isinstance(prompt, str) else details
    return details
