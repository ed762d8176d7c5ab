"""The whole devnet as one ASGI application: counters, guard, faults, and the routes inside.

It promises that every refusal is JSON with a `message` (S3's own form under `/s3`) and is counted. It opens and
closes nothing: `state` does.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from miner.devnet import endpoints, s3, store
from miner.devnet.control import Control, record_violation
from miner.devnet.faults import Faults
from miner.devnet.guard import Guard
from miner.devnet.routes import CONTROL, route_name
from miner.devnet.state import Devnet, devnet_of
from miner.devnet.tampering import Tampering
from miner.devnet.traffic import Recording, Traffic
from miner.devnet.wire import Refusal

CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; nobody is there to read it, but it is counted


def build_app(devnet: Devnet) -> Starlette:
    """The application for an open devnet. It needs `connection.ConnectionProtocol` under it, as `serve` has it."""
    traffic, faults = Traffic(), Faults()
    app = Starlette(
        routes=_routes(Control(traffic=traffic, faults=faults)),
        middleware=[
            Middleware(Recording, traffic=traffic),
            Middleware(Guard, options=devnet.options),
            Middleware(Tampering, faults=faults, stopping=devnet.bell.stopping),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _no_such_call, ClientDisconnect: _nobody_there},
    )
    app.router.redirect_slashes = False  # a wrong path is refused, not mended
    app.state.devnet = devnet
    return app


def _routes(control: Control) -> list[Route]:
    calls = (
        endpoints.resource_request,
        endpoints.task_create,
        endpoints.task_result_query,
        endpoints.task_cancel,
        endpoints.miner_request,
        endpoints.miner_submit,
    )
    return [
        *(Route(f"/{call.__name__}", call, methods=["POST"]) for call in calls),
        Route("/store/{bucket}/{key:path}", store.store_put, methods=["PUT"]),
        Route("/store/{bucket}/{key:path}", store.store_get, methods=["GET"]),
        Route("/inputs/{name}", store.input_put, methods=["PUT"]),
        Route("/inputs/{folder}/{name}", store.input_get, methods=["GET"]),
        Route("/s3/{bucket}/{key:path}", s3.s3_put, methods=["PUT"]),
        Route("/s3/{bucket}/{key:path}", s3.s3_post, methods=["POST"]),
        Route("/s3/{bucket}/{key:path}", s3.s3_delete, methods=["DELETE"]),
        Route("/s3/{bucket}/{key:path}", s3.s3_get, methods=["GET"]),
        Route("/_devnet/stats", control.stats, methods=["GET"]),
        Route("/_devnet/requests", control.requests, methods=["GET"]),
        Route("/_devnet/tasks", control.tasks, methods=["GET"]),
        Route("/_devnet/tasks", control.create, methods=["POST"]),
        Route("/_devnet/faults", control.list_faults, methods=["GET"]),
        Route("/_devnet/faults", control.add_faults, methods=["POST"]),
        Route("/_devnet/faults", control.clear_faults, methods=["DELETE"]),
        Route("/_devnet/reset", control.reset, methods=["POST"]),
    ]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  the handler's registration says so; this tells mypy
    route = route_name(request.method, request.url.path)
    if error.counted and route != CONTROL:
        record_violation(devnet_of(request), request, error, route=route)
    if route.startswith("s3_"):
        return s3.error_document(error)
    return JSONResponse({"message": error.message}, error.status)


async def _no_such_call(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  as above
    return await _refused(request, Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))


async def _nobody_there(request: Request, error: Exception) -> Response:  # noqa: ARG001  a handler's signature
    return Response(status_code=CLIENT_CLOSED_REQUEST)
