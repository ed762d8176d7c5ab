"""Kept connections that the deadline in force can cut.

Promises: certificates are verified, against certifi's list for hosts that tasks name; no connection outlasts the
deadline that it is used under, TLS handshake and reuse included; a request's target is sent as it was spelled, if it is
asked for `verbatim`. Never: takes a proxy or an authority from the
environment, except for a host that the operator named (`operators_pools`).
"""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection

from miner.net.addresses import require_elsewhere, require_public
from miner.net.deadline import Deadline, in_force
from miner.net.environment import proxy_for, shown, trust
from miner.net.errors import MOST_LINES, EndlessLines

_CHUNK = 1 << 16  # bytes
_LEAST_CHUNK = 256  # bytes that each chunk counts for at least: a chunk costs time, however small

_target: ContextVar[str | None] = ContextVar("target", default=None)


@contextmanager
def verbatim(target: str) -> Iterator[None]:
    """Requests made inside ask for `target`, whatever urllib3 makes of the URL: it decodes `%7E` and encodes `[`."""
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


class _Lines(io.BufferedReader):
    """What a server sends, as long as a body comes now and then."""

    _in_a_row = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        self._in_a_row += 1
        if self._in_a_row > MOST_LINES:
            raise EndlessLines
        return super().readline(size)

    def read(self, size: int | None = -1, /) -> bytes:
        self._in_a_row = 0
        return super().read(size)


class _Response(http.client.HTTPResponse):
    """Skips every interim answer, such as 103 (RFC 9110, 15.2); http.client skips 100 alone."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _Lines(self.fp.detach())

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = None  # type: ignore[assignment]  # so that it begins once more
            super().begin()


class Watched(HTTPConnection):
    """Connects to any address."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        try:
            limit = in_force()
            limit.watch(sock)
            if limit.over:  # no handshake on a socket that was cut: ssl would leave it open
                raise urllib3.exceptions.ConnectTimeoutError(self, "the deadline is over")
            self._require_allowed(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _require_allowed(self, sock: socket.socket) -> None:
        """Raise Refused if nothing may be sent to the peer of `sock`."""

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            limit = in_force()
            limit.watch(self.sock)
            self.timeout = limit.left  # else urllib3 would send under the time-out for connecting
        target = _target.get() or url
        if self.proxy_is_forwarding and target.startswith("/"):  # the proxy has to be told the host
            target = "{}://{}{}".format(*urlsplit(url)[:2], target)
        super().request(method, target, *args, **kwargs)


class Public(Watched):
    """Connects to public addresses only, outside this machine's own network. Its host must be an IP address.

    This is the second check: `Guard` chose the address after judging every address of the name.
    """

    def _new_conn(self) -> socket.socket:
        require_public([self.host])
        return super()._new_conn()

    def _require_allowed(self, sock: socket.socket) -> None:
        require_elsewhere(sock.getsockname()[0], sock.getpeername()[0])


class Pools(urllib3.PoolManager):
    """urllib3's pools, with one of the kinds of connection above. Every request needs a `Deadline` around it."""

    def __init__(self, kind: type[Watched] = Watched, **options: Any) -> None:
        super().__init__(**{"cert_reqs": "CERT_REQUIRED", "ca_certs": DEFAULT_CA_BUNDLE_PATH, **options})
        _set_kind(self, kind)


def _set_kind(pools: urllib3.PoolManager, kind: type[Watched]) -> None:
    def of_kind(pool: Any) -> Any:
        connection = type(kind.__name__, (kind, pool.ConnectionCls), {})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})

    pools.pool_classes_by_scheme = {scheme: of_kind(pool) for scheme, pool in pools.pool_classes_by_scheme.items()}


def operators_pools(url: str, *, kind: type[Watched] | None = Watched, **options: Any) -> urllib3.PoolManager:
    """Pools for a host that the operator named, which trust and go where the environment says. `kind` None: plain ones,
    without a `Deadline`. Raises ConfigError.
    """
    options = {"cert_reqs": "CERT_REQUIRED", **trust().options(), **options}
    proxy, pools = proxy_for(url), urllib3.PoolManager(**options)
    if proxy:
        user, _, _ = urlsplit(proxy).netloc.rpartition("@")
        headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
        pools = urllib3.ProxyManager(shown(proxy), proxy_headers=headers, **options)
    if kind is not None:
        _set_kind(pools, kind)
    return pools


def read_bounded(
    response: urllib3.BaseHTTPResponse, most: int, *, limit: Deadline | None = None, rate: float = 0.0
) -> bytes | None:
    """The body as it was sent, or None if it is longer than `most` bytes. Raises urllib3's HTTPError.

    `limit` is extended by a second for each `rate` bytes. A body in many small chunks is allowed fewer bytes.
    """
    body, counted = io.BytesIO(), 0
    least = _LEAST_CHUNK if getattr(response, "chunked", False) else 0
    if (response.length_remaining or 0) > most:
        return None
    while chunk := response.read1(_CHUNK, decode_content=False):
        body.write(chunk)
        counted += max(len(chunk), least)
        if counted > max(most, least):
            return None
        if limit is not None:
            limit.grant(len(chunk) / rate)
    response.release_conn()  # urllib3 does not release it after an empty body
    return body.getvalue()
