"""The whole devnet as one ASGI application: guard and routes, and what an embedding program adds.

It promises that every refusal is JSON with a `message`. It opens and closes nothing: `state` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from miner.devnet import endpoints, store
from miner.devnet.guard import Guard
from miner.devnet.state import Devnet
from miner.devnet.wire import Refusal

CLIENT_CLOSED_REQUEST = 499  # nginx's code; the client is gone and never reads it

_CALLS = (
    endpoints.resource_request,
    endpoints.task_create,
    endpoints.task_result_query,
    endpoints.task_cancel,
    endpoints.miner_request,
    endpoints.miner_submit,
)


def build_app(
    devnet: Devnet,
    *,
    routes: Sequence[Route] = (),
    layers: Sequence[Middleware] = (),
    refused: Callable[[Request, Refusal], None] | None = None,
) -> Starlette:
    """The application for an open devnet. It needs `connection.ConnectionProtocol` under it, as `serve` has it.

    A program that embeds devnet, such as a test, adds `routes` inside the guard and `layers` around it, the first one
    outermost; `refused` is told of every refusal that counts as a violation of the protocol.
    """

    async def on_refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)  # noqa: S101  the handler's registration says so; this tells mypy
        if refused is not None and error.counted:
            refused(request, error)
        return JSONResponse({"message": error.message}, error.status)

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  as above
        reason = f"{request.method} {request.url.path}: {error.detail}"
        return await on_refusal(request, Refusal(error.status_code, reason))

    app = Starlette(
        routes=[*_routes(), *routes],
        middleware=[*layers, Middleware(Guard, options=devnet.options)],
        exception_handlers={Refusal: on_refusal, HTTPException: on_http_error, ClientDisconnect: _on_disconnect},
    )
    app.router.redirect_slashes = False  # a wrong path is refused, not redirected
    app.state.devnet = devnet
    return app


def _routes() -> list[Route]:
    return [
        *(Route(f"/{call.__name__}", call, methods=["POST"]) for call in _CALLS),
        Route("/store/{bucket}/{key:path}", store.store_put, methods=["PUT"]),
        Route("/store/{bucket}/{key:path}", store.store_get, methods=["GET"]),
        Route("/inputs/{name}", store.input_put, methods=["PUT"]),
        Route("/inputs/{folder}/{name}", store.input_get, methods=["GET"]),
    ]


async def _on_disconnect(request: Request, error: Exception) -> Response:  # noqa: ARG001  a handler's signature
    return Response(status_code=CLIENT_CLOSED_REQUEST)
