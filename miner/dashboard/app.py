"""The server as one ASGI application: guard, endpoints, and the page's files, read once."""

from __future__ import annotations

import mimetypes
from importlib.resources import files

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from miner.dashboard.access import Guard, SignIn
from miner.dashboard.api import Api, bug, journal_unreadable
from miner.task.errors import MachineFault


def build_app(api: Api, *, host: str, token: str) -> Starlette:
    """The application. `host`: the listening address. `token`: required of callers, or ""."""
    return Starlette(
        routes=[
            Route("/sign-in", SignIn(token=token).__call__, methods=["POST"]),
            *api.routes(),
            *(_file(path, name) for path, name in _files().items()),
        ],
        middleware=[Middleware(Guard, host=host, token=token)],
        exception_handlers={MachineFault: journal_unreadable, Exception: bug},
    )


def _files() -> dict[str, str]:
    """Path → file name in `static`."""
    names = [entry.name for entry in files("miner.dashboard").joinpath("static").iterdir()]
    pages = {"/": "index.html", "/sign-in": "sign-in.html"}
    return pages | {f"/{name}": name for name in names if not name.endswith(".html")}


def _file(path: str, name: str) -> Route:
    body = files("miner.dashboard").joinpath("static", name).read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"

    async def send(_request: Request) -> Response:
        return Response(body, media_type=kind, headers={"Cache-Control": "no-cache"})

    return Route(path, send)
