"""HTTP to places that a task named: guarded, pinned, and bounded in time.

Promises: a session from here connects to public addresses alone, or to what the operator allowed by name. Every
address that a name resolves to is judged, and the connection goes to one of those that were judged, so DNS that
changes its answer in between is no way in. The deadline in force counts look-up, handshake, headers and body together.

Never: follows a redirect, carries cookies, reads proxies or credentials from the environment, or puts an address or a
URL into an error.
"""

from __future__ import annotations

import itertools
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from miner import __version__
from miner.net import deadline
from miner.net.addresses import PORTS, Allow, Refused, is_literal, parse_url, require_elsewhere, require_public
from miner.task.errors import Retryable

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to IP addresses, best first. Blocks; raises OSError or UnicodeError."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECT_SECONDS = 10.0  # for one address; the next attempt takes another


class _Unresolved(requests.ConnectionError):
    """DNS has no address for the name."""


def resolve(host: str, port: int) -> Sequence[str]:
    """The system's resolver."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Guard:
    """Judges URLs before they are asked, and addresses before they are connected to."""

    def __init__(
        self, *, allow: Allow = frozenset(), schemes: Collection[str] = ("http", "https"), resolve: Resolve = resolve
    ) -> None:
        self._allow = allow
        self._schemes = schemes
        self._resolve = resolve

    def allows(self, host: str, port: int) -> bool:
        return (host, port) in self._allow

    def check(self, url: str) -> None:
        """Judge what a URL says by itself: its spelling, scheme, host and port. Raises Refused; looks nothing up."""
        place = parse_url(url)
        if self.allows(place.host, place.port):
            return
        if place.scheme not in self._schemes:
            raise Refused(f"the address is not {' or '.join(self._schemes)}")
        if place.port not in PORTS.values():
            raise Refused("the port is neither 80 nor 443")
        if is_literal(place.host):
            require_public([place.host])

    def address(self, host: str, port: int, *, turn: int = 0) -> str:
        """The address to connect to for a name, after every address that it has was judged.

        `turn` counts failed attempts: each takes another address, one of the other IP version next. Blocks for as
        long as the deadline in force leaves. Raises Refused, or a ConnectionError of requests.
        """
        found = [host] if is_literal(host) else _in_time(lambda: list(self._resolve(host, port)))
        if not found:
            raise _Unresolved
        if not self.allows(host, port):
            require_public(found)
        versions = [[a for a in found if ":" in a], [a for a in found if ":" not in a]]
        versions.sort(key=lambda same: found[0] not in same)
        in_turn = [a for pair in itertools.zip_longest(*versions) for a in pair if a is not None]
        return in_turn[turn % len(in_turn)]


def _in_time(look_up: Callable[[], list[str]]) -> list[str]:
    """Look up beside this thread, for nothing can interrupt it; one that hangs is ended by the resolver's own limit."""
    answer: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def run() -> None:
        with suppress(OSError, UnicodeError):  # no such name: an empty answer
            answer.put(look_up())
        answer.put([])

    threading.Thread(target=run, name="resolve", daemon=True).start()
    try:
        return answer.get(timeout=deadline.in_force().left)
    except queue.Empty:
        raise requests.ConnectTimeout from None


_allowed: ContextVar[bool] = ContextVar("allowed")  # whether the operator named the place that is asked now


class _Watched(HTTPConnection):
    """A connection that the deadline in force can cut, also where it is an old one that is used again."""

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        limit = deadline.in_force()
        limit.watch(sock)
        try:
            if limit.expired:
                raise requests.ConnectTimeout  # no handshake on what was cut: ssl would leave the socket open
            if not _allowed.get():
                require_elsewhere(sock.getsockname()[0], sock.getpeername()[0])
        except BaseException:
            sock.close()
            raise
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            deadline.in_force().watch(self.sock)
        super().request(*args, **kwargs)


class _WatchedTLS(_Watched, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Watched


class _PoolTLS(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


class _Adapter(IPFilterAdapter):  # type: ignore[misc]  # requests-hardened carries no types
    """requests-hardened's filter and pinning, over addresses that the guard chose.

    Theirs resolves the name itself, judges the first address only, and knows fewer private networks. So it is given the
    chosen address in the name's place, and judges that one once more.
    """

    def __init__(self, guard: Guard, *, tls: bool, blocksize: int) -> None:
        self._guard = guard
        self._blocksize = blocksize
        self._turn = 0
        super().__init__(is_https_proto=tls)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, blocksize=self._blocksize)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        place = parse_url(str(request.url))
        address = self._guard.address(place.host, place.port, turn=self._turn)
        pinned = request.copy()
        pinned.url = f"{place.scheme}://{_bracketed(address)}:{place.port}"
        # What the operator allowed may be private, so their filter is left out for it.
        base: Any = super(IPFilterAdapter, self) if self._guard.allows(place.host, place.port) else super()
        host_params, pool_kwargs = base.build_connection_pool_key_attributes(pinned, verify, cert)
        port = "" if place.port == PORTS[place.scheme] else f":{place.port}"
        request.headers["Host"] = _bracketed(place.host) + port
        if place.scheme == "https":
            pool_kwargs |= {"assert_hostname": place.host, "server_hostname": place.host}
        return host_params, pool_kwargs

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            response: requests.Response = super().send(*args, **kwargs)
        except requests.ConnectionError:
            self._turn += 1
            raise
        return response


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Session(HTTPSession):  # type: ignore[misc]  # requests-hardened carries no types
    """A session under a guard. Every request has to be made, and its answer read, inside a `Deadline`."""

    def __init__(self, guard: Guard, *, blocksize: int = 1 << 16) -> None:
        config = Config(
            ip_filter_enable=True,
            ip_filter_allow_loopback_ips=False,
            never_redirect=True,
            default_timeout=(_CONNECT_SECONDS, _CONNECT_SECONDS),
            user_agent_override=f"xalora-miner/{__version__}",
        )
        super().__init__(config)
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.clear()
        self._guard = guard
        self.mount("http://", _Adapter(guard, tls=False, blocksize=blocksize))
        self.mount("https://", _Adapter(guard, tls=True, blocksize=blocksize))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: on seeing a redirect, requests would read all of its body into memory, followed or not."""

    @contextmanager
    def exchange(self, method: str, url: str, **kwargs: Any) -> Iterator[requests.Response]:
        """One request, its answer's body still unread. Raises Refused and Retryable, here and while it is read."""
        self._guard.check(url)
        limit = deadline.in_force()
        place = parse_url(url)
        named = _allowed.set(self._guard.allows(place.host, place.port))
        try:
            # Straight to the adapter: of a session's own, cookies, redirects and the environment, nothing is wanted.
            request = requests.Request(method, url, **kwargs).prepare()
            request.headers["User-Agent"] = f"xalora-miner/{__version__}"
            timeout = (min(_CONNECT_SECONDS, limit.left), limit.left)
            with self.get_adapter(url).send(request, stream=True, timeout=timeout, verify=True) as response:
                yield response
            if limit.expired:  # a body that lasts until the connection ends also ends when it is cut
                raise requests.ReadTimeout
        except InvalidIPAddress:
            raise Refused("the address is not public") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # Without its cause: the text of such an error holds addresses and the URL, whose query can be a secret.
            raise Retryable(_in_words(error, limit)) from None
        finally:
            _allowed.reset(named)


def _in_words(error: Exception, limit: deadline.Deadline) -> str:
    match error:
        case _ if limit.expired:
            return f"there was no whole answer within {limit.seconds:g} s"
        case _Unresolved():
            return "the host name does not resolve"
        case requests.exceptions.SSLError() | urllib3.exceptions.SSLError():
            return "the server has no valid TLS certificate"
        case requests.ConnectTimeout():
            return "the server does not answer"
        case requests.ConnectionError() | urllib3.exceptions.ProtocolError() | OSError():
            return "the connection to the server failed"
    return "the server does not speak HTTP"


def redirect(response: requests.Response, url: str) -> str | None:
    """The absolute URL that an answer to `url` points on to, still to be judged; None if it is no redirect."""
    location = response.headers.get("Location")
    if location is None or response.status_code not in _REDIRECTS:
        return None
    try:
        return urljoin(url, location.encode("latin-1").decode())  # http.client read the header as latin-1
    except ValueError:
        raise Refused("the server redirects to what is no URL") from None


def is_passing(status: int) -> bool:
    """Whether an HTTP status means that the same request may go well later."""
    return status in (408, 425, 429) or status >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for, in seconds, at most an hour. None where it is missing or makes no sense."""
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), 3600.0)
    try:
        return min(max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0), 3600.0)
    except (ValueError, OverflowError):
        return None
