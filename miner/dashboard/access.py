"""Access control.

Requests from other sites' pages, in a browser on this machine, are refused by `Origin`, `Sec-Fetch-Site` or, after DNS
rebinding, `Host`. Beyond loopback a token is required, as `Authorization: Bearer` or as the cookie that the sign-in
page sets; wrong ones are answered slowly, one at a time. Security headers restrict browsers to what the page needs.
Tokens are never logged, and compared in constant time.
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
HEADER = "x-xalora-action"  # other sites' forms cannot send it
WRONG_TOKEN_DELAY = 0.5  # seconds
MAX_REQUESTS = 128  # at once, event streams included; probes are exempt

PROBES = frozenset({"/healthz", "/readyz"})
OPEN = PROBES | {"/sign-in", "/app.css", "/icon.svg"}
"""Paths without a token: probes and the sign-in page."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # else browsers send `Origin: null` with the sign-in form
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """The ASGI middleware that checks each request."""

    def __init__(self, app: ASGIApp, *, host: str, token: str) -> None:
        """`host`: the listening address. `token`: "" for none; then `host` must be loopback."""
        self._app = app
        self._any_name = not is_loopback(host)
        self._host = host
        self._token = token
        self._guess_lock = asyncio.Lock()
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._in_hand >= MAX_REQUESTS and scope["path"] not in PROBES:
            await _refused(503, f"{MAX_REQUESTS} requests at once; close some pages")(scope, receive, send)
            return
        self._in_hand += 1
        try:
            headers = Headers(scope=scope)
            answer = self._cross_site(scope, headers) or await self._without_token(scope, headers)
            await (answer or self._app)(scope, receive, _with_security_headers(send))
        finally:
            self._in_hand -= 1

    def _cross_site(self, scope: Scope, headers: Headers) -> Response | None:
        """The refusal of a request from another site's page, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_our_name(host):
            return _refused(403, f"unknown Host {host[:100]!a}; use http://127.0.0.1 or http://localhost")
        if origin is not None and _host_of(origin) != host:
            return _refused(403, "cross-site request")
        if scope["method"] not in ("GET", "HEAD"):
            if headers.get("sec-fetch-site", "same-origin") != "same-origin":
                return _refused(403, "cross-site request")
            if scope["path"] != "/sign-in" and HEADER not in headers:
                return _refused(403, f"missing header {HEADER}")
        return None

    async def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """The refusal of a request without the token, or None."""
        if not self._token or scope["path"] in OPEN:
            return None
        shown = Request(scope).cookies.get(COOKIE)
        if shown is not None and same(shown, cookie_of(self._token)):
            return None
        authorization = headers.get("authorization")
        if authorization is not None:
            if same(authorization, f"Bearer {self._token}"):
                return None
            async with self._guess_lock:
                await asyncio.sleep(WRONG_TOKEN_DELAY)
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/sign-in", 303)
        return _refused(401, "missing or wrong token; send Authorization: Bearer <token>")

    def _is_our_name(self, host: str) -> bool:
        """Beyond loopback any name is accepted: the token protects."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return self._any_name or name == self._host or is_loopback(name)


class SignIn:
    """The sign-in form: checks the token and sets the cookie."""

    def __init__(self, *, token: str) -> None:
        self._token = token
        self._guess_lock = asyncio.Lock()

    async def __call__(self, request: Request) -> Response:
        given = str((await _form(request)).get("token", ""))
        if not self._token or not same(given, self._token):
            async with self._guess_lock:
                await asyncio.sleep(WRONG_TOKEN_DELAY)
            return RedirectResponse("/sign-in#wrong", 303)
        reply = RedirectResponse("/", 303)
        reply.set_cookie(COOKIE, cookie_of(self._token), max_age=90 * 86400, httponly=True, samesite="strict")
        return reply


def _host_of(origin: str) -> str:
    """`host:port` of an `Origin`; "" if invalid, such as `null`."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def cookie_of(token: str) -> str:
    """The cookie's value: proves the token without containing it."""
    return hmac.new(token.encode(), b"xalora-miner status cookie", hashlib.sha256).hexdigest()


def same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())


async def _form(request: Request) -> dict[str, str]:
    """Parse a small URL-encoded form without python-multipart, which Starlette would need."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > 4096:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status)


def _with_security_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return with_headers
