"""Who may talk to devnet: this machine under its own name, or a client with the token.

It promises that a web page that somebody looks at on this machine reaches nothing (its `Origin` or, after DNS
rebinding, its `Host` gives it away). The consumer's calls carry an API key, and the store's URLs and signatures are
secrets themselves, so those need no token beside it.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from miner.devnet.options import DevnetOptions, is_loopback
from miner.devnet.routes import CONSUMER_ROUTES, STORE_ROUTES, route_name
from miner.devnet.wire import Refusal

_OPEN = frozenset((*CONSUMER_ROUTES, *STORE_ROUTES)) - {"input_put"}


class Guard:
    """The ASGI layer that checks."""

    def __init__(self, app: ASGIApp, *, options: DevnetOptions) -> None:
        self._app = app
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(route_name(scope["method"], scope["path"]), Headers(scope=scope))
            except Refusal as refusal:
                await JSONResponse({"message": refusal.message}, refusal.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, route: str, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(f"//{host}"):
            raise Refusal(403, f"Host {host} is not this devnet")
        if origin is not None and not self._is_ours(origin):
            raise Refusal(403, f"Origin {origin} is not this devnet's")
        if self._options.token and route not in _OPEN:
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._options.token}".encode()):
                raise Refusal(401, "the token is missing or wrong; send Authorization: Bearer <token>")

    def _is_ours(self, url: str) -> bool:
        """Beyond loopback any name is accepted: the operator chooses it, and the token decides."""
        try:
            name = urlsplit(url).hostname or ""
        except ValueError:
            return False
        return (
            is_loopback(name)
            or name == urlsplit(self._options.public_url).hostname
            or not is_loopback(self._options.host)
        )
