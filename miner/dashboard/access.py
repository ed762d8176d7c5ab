"""Who may look and who may press a button.

Promises: a web page of somebody else's reaches nothing here, whatever browser it is opened in on this machine: its
`Origin`, its `Sec-Fetch-Site` or, after DNS rebinding, its `Host` gives it away. Beyond loopback a caller shows the
token, as `Authorization: Bearer` or as the cookie that the sign-in page gives for it; wrong ones are answered slowly,
one at a time. Every reply forbids a browser what the page does not need.

Never: logs or compares a token in a way that shows how much of it was right.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miner.dashboard.bind import is_loopback

COOKIE = "xalora_status"
HEADER = "x-xalora-action"  # a form of another site cannot send it
SLOWNESS = 0.5  # seconds for a wrong token
MOST_AT_ONCE = 128  # requests in hand, a page's stream of events among them; probes come on top

PROBES = frozenset({"/healthz", "/readyz"})
OPEN = PROBES | {"/sign-in", "/app.css", "/icon.svg"}
"""What needs no token: probes have none, and the sign-in page is for those who have not shown it yet."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without one a browser sends `Origin: null` for the sign-in form
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """The ASGI layer that checks."""

    def __init__(self, app: ASGIApp, *, host: str, token: str) -> None:
        """`host` is what the server listens on. An empty `token` is none, and then `host` is loopback."""
        self._app = app
        self._anywhere = not is_loopback(host)
        self._host = host
        self._token = token
        self._one_guess = asyncio.Lock()
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._in_hand >= MOST_AT_ONCE and scope["path"] not in PROBES:
            await _refused(503, f"{MOST_AT_ONCE} requests are in hand; close some pages")(scope, receive, send)
            return
        self._in_hand += 1
        try:
            headers = Headers(scope=scope)
            answer = self._as_a_stranger(scope, headers) or await self._without_token(scope, headers)
            await (answer or self._app)(scope, receive, _hardened(send))
        finally:
            self._in_hand -= 1

    def _as_a_stranger(self, scope: Scope, headers: Headers) -> Response | None:
        """The refusal for a request that another site's page made, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            return _refused(403, f"Host {host[:100]!a} is not this server's name; use http://127.0.0.1 or localhost")
        if origin is not None and _place(origin) != host:
            return _refused(403, "the request comes from a page of another site")
        if scope["method"] not in ("GET", "HEAD"):
            if headers.get("sec-fetch-site", "same-origin") != "same-origin":
                return _refused(403, "the request comes from a page of another site")
            if scope["path"] != "/sign-in" and HEADER not in headers:
                return _refused(403, f"the header {HEADER} is missing")
        return None

    async def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """The refusal for a request that shows no right token, or None."""
        if not self._token or scope["path"] in OPEN:
            return None
        shown = Request(scope).cookies.get(COOKIE)
        if shown is not None and same(shown, cookie_of(self._token)):
            return None
        authorization = headers.get("authorization")
        if authorization is not None:
            if same(authorization, f"Bearer {self._token}"):
                return None
            async with self._one_guess:
                await asyncio.sleep(SLOWNESS)
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/sign-in", 303)
        return _refused(401, "the token is missing or wrong; send Authorization: Bearer <token>")

    def _is_ours(self, host: str) -> bool:
        """Beyond loopback the names are the operator's to choose, and the token is what counts."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return self._anywhere or name == self._host or is_loopback(name)


class SignIn:
    """The form that takes the token and gives the cookie."""

    def __init__(self, *, token: str) -> None:
        self._token = token
        self._one_guess = asyncio.Lock()

    async def __call__(self, request: Request) -> Response:
        given = str((await _form(request)).get("token", ""))
        if not self._token or not same(given, self._token):
            async with self._one_guess:
                await asyncio.sleep(SLOWNESS)
            return RedirectResponse("/sign-in#wrong", 303)
        reply = RedirectResponse("/", 303)
        reply.set_cookie(COOKIE, cookie_of(self._token), max_age=90 * 86400, httponly=True, samesite="strict")
        return reply


def _place(origin: str) -> str:
    """`host:port` of an `Origin`; empty for what is none, such as `null`."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def cookie_of(token: str) -> str:
    """What the cookie holds: enough to know the token again, not enough to know it."""
    return hmac.new(token.encode(), b"xalora-miner status cookie", hashlib.sha256).hexdigest()


def same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())


async def _form(request: Request) -> dict[str, str]:
    """A small URL-encoded form, without the library that Starlette would want for it."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > 4096:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status)


def _hardened(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return with_headers
