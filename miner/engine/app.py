"""The application: its parts, the routes with and without `/api`, and who may call."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from miner.engine.api import files, info, jobs, prompts, socket
from miner.engine.cache import Cache
from miner.engine.executor import Executor
from miner.engine.flags import Flags
from miner.engine.folders import Folders
from miner.engine.hub import Hub
from miner.engine.interrupt import Interrupt
from miner.engine.nodes import Node, nodes_for
from miner.engine.prompts import Prompts
from miner.engine.run import Workshop
from miner.engine.state import Engine

_PATIENCE = 2.0  # seconds for a running node to heed the interrupt when the engine stops


class OnlyLocal:
    """Refuses what another site's page could send through a browser on this machine.

    Host must name this machine, Origin must match Host, and Sec-Fetch-Site must not be cross-site. ComfyUI does the
    last two.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (reason := _foreign(HTTPConnection(scope))):
            await PlainTextResponse(reason, status_code=403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _foreign(connection: HTTPConnection) -> str:
    """Why a request does not come from this machine's own programs, or ""."""
    headers = connection.headers
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _is_loopback(urlsplit(f"//{host}").hostname or ""):
        return f"Host {host!r} is not this machine"
    if origin is not None and urlsplit(origin).netloc != host:
        return f"Origin {origin!r} is not {host!r}"
    return "cross-site" if headers.get("sec-fetch-site") == "cross-site" else ""


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def build_app(flags: Flags, folders: Folders, nodes: Iterable[Node] = ()) -> Starlette:
    """The engine as an ASGI application, with `nodes` beside its own.

    Its executor and its sender start and end with the application's lifespan.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.engine = engine = _start(flags, folders, nodes_for(flags.dialect, nodes))
        sender = asyncio.create_task(engine.hub.drain(), name="sender")
        engine.executor.start()
        try:
            yield
        finally:
            engine.prompts.close()
            engine.interrupt.ask()
            await asyncio.to_thread(engine.executor.join, _PATIENCE)
            sender.cancel()

    common: list[BaseRoute] = [*prompts.ROUTES, *files.ROUTES, *info.ROUTES, *socket.ROUTES]
    only_newer = jobs.ROUTES if flags.dialect.jobs_api else ()
    routes = [*only_newer, Mount("/api", routes=common), *common]
    return Starlette(routes=routes, middleware=[Middleware(OnlyLocal)], lifespan=lifespan)


def _start(flags: Flags, folders: Folders, nodes: Mapping[str, Node]) -> Engine:
    hub, interrupt = Hub(), Interrupt()
    queue = Prompts(
        changed=lambda left: hub.publish("status", {"status": {"exec_info": {"queue_remaining": left}}}, None),
        interrupt=interrupt,
    )
    workshop = Workshop(
        dialect=flags.dialect,
        nodes=nodes,
        folders=folders,
        cache=Cache(keeps=flags.cache),
        interrupt=interrupt,
        metadata=flags.metadata,
        previews=flags.previews,
        preview_size=flags.preview_size,
    )
    return Engine(
        dialect=flags.dialect,
        folders=folders,
        nodes=nodes,
        prompts=queue,
        interrupt=interrupt,
        hub=hub,
        executor=Executor(prompts=queue, hub=hub, workshop=workshop),
        numbers=itertools.count(),
        max_upload=flags.max_upload,
    )
