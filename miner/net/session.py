"""HTTP to addresses that a task names: guarded, pinned, and bounded in time.

Promises: a session connects only to public addresses, or to hosts that the operator allowed by name. Every address of a
name is judged, and the connection goes to one of those, so a DNS answer that changes in between has no effect. The
deadline in force covers look-up, handshake, headers and body together. A URL's path and query are sent as they are
spelled.

Never: follows a redirect, carries cookies, reads credentials from the environment, or puts an address or a URL into an
error. A proxy counts only for a host that the operator named (`OperatorsSession`).
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
from typing import Any
from urllib.parse import urljoin

import urllib3

from miner import __version__
from miner.net.addresses import PORTS, Allow, Refused, is_literal, parse_url, require_public, target_of
from miner.net.deadline import Deadline, in_force
from miner.net.environment import proxy_for
from miner.net.errors import Unreached, look_up_kind, unreached
from miner.net.pools import Pools, Public, Watched, operators_pools, verbatim

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to IP addresses, best first. Blocks; raises OSError or UnicodeError."""

Response = urllib3.BaseHTTPResponse

LOOK = 5.0  # seconds for a look-up ahead
LOOK_AGAIN = 300.0  # seconds until the next one of a host
LOOKED = 1000  # hosts to remember

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECT_SECONDS = 10.0  # for one address; the next attempt uses another
_SERVER = "the server"


def resolve(host: str, port: int) -> Sequence[str]:
    """The system's resolver."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Guard:
    """Judges URLs before they are requested, and addresses before they are connected to."""

    def __init__(
        self, *, allow: Allow = frozenset(), schemes: Collection[str] = ("http", "https"), resolve: Resolve = resolve
    ) -> None:
        self._allow = allow
        self._schemes = schemes
        self._resolve = resolve
        self._looked: dict[tuple[str, int], float] = {}  # host, port → monotonic time

    def allows(self, host: str, port: int) -> bool:
        return (host, port) in self._allow

    def check(self, url: str) -> None:
        """Judge a URL by its spelling, scheme, host and port, without a look-up. Raises Refused."""
        place = parse_url(url)
        if self.allows(place.host, place.port):
            return
        if place.scheme not in self._schemes:
            raise Refused(f"the address is not {' or '.join(self._schemes)}")
        if place.port not in PORTS.values():
            raise Refused("the port is neither 80 nor 443")
        if is_literal(place.host):
            require_public([place.host])

    def look(self, url: str) -> None:
        """Judge a URL by the addresses of its host too, unless that was done lately. Blocks for LOOK seconds at most.

        Raises Refused; a name that is not found now may be later.
        """
        self.check(url)
        place = parse_url(url)
        now = time.monotonic()
        if now - self._looked.get((place.host, place.port), float("-inf")) < LOOK_AGAIN:
            return
        with suppress(Unreached), Deadline(LOOK):
            self.address(place.host, place.port)
        if len(self._looked) >= LOOKED:
            self._looked.clear()
        self._looked[place.host, place.port] = now

    def address(self, host: str, port: int, *, turn: int = 0) -> str:
        """The address to connect to for a name, after judging all of its addresses.

        `turn` counts failed attempts: each uses another address, next one of the other IP version. Blocks until the
        deadline in force at most. Raises Refused and Unreached.
        """
        found = [host] if is_literal(host) else _in_time(lambda: list(self._resolve(host, port)))
        if not self.allows(host, port):
            _require_public(found, literal=is_literal(host))
        versions = [[a for a in found if ":" in a], [a for a in found if ":" not in a]]
        versions.sort(key=lambda same: found[0] not in same)
        in_turn = [a for pair in itertools.zip_longest(*versions) for a in pair if a is not None]
        return in_turn[turn % len(in_turn)]


class NotPublic(Refused):
    """A name has a private address: the name's fault, or that of a resolver which answers for everything."""


def _require_public(found: Sequence[str], *, literal: bool) -> None:
    try:
        require_public(found)
    except Refused as refusal:
        raise refusal if literal else NotPublic(str(refusal)) from None


def _in_time(look_up: Callable[[], list[str]]) -> list[str]:
    """Look up in another thread, since it cannot be interrupted; the resolver's own limit ends it if it hangs."""
    answer: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put(look_up())
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=run, name="resolve", daemon=True).start()
    limit = in_force()
    try:
        found = answer.get(timeout=limit.patience)
    except queue.Empty:
        raise Unreached(f"{_SERVER} {limit.why}", kind="look-up") from None
    if isinstance(found, OSError):
        raise Unreached("the host name does not resolve", kind=look_up_kind(found)) from None
    if isinstance(found, Exception) or not found:  # a name that cannot exist
        raise Unreached("the host name does not resolve", kind="name") from None
    return found


class Session:
    """Connections under a guard. Every request must be made, and its answer read, inside a `Deadline`."""

    def __init__(self, guard: Guard, *, blocksize: int = 1 << 16) -> None:
        """`blocksize` is bytes per send."""
        self._guard = guard
        self._turn = 0  # failed exchanges
        self._pools = {False: Pools(Public, blocksize=blocksize), True: Pools(Watched, blocksize=blocksize)}

    def close(self) -> None:
        for pools in self._pools.values():
            pools.clear()

    @contextmanager
    def exchange(self, method: str, url: str, *, headers: Mapping[str, str], body: Any = None) -> Iterator[Response]:
        """One request; the body of its answer is still unread. Raises Refused and Retryable, also while it is read."""
        self._guard.check(url)
        place = parse_url(url)
        address = self._guard.address(place.host, place.port, turn=self._turn)
        name = {"assert_hostname": place.host, "server_hostname": place.host} if place.scheme == "https" else {}
        port = "" if place.port == PORTS[place.scheme] else f":{place.port}"
        pools = self._pools[self._guard.allows(place.host, place.port)]
        pool = pools.connection_from_host(_bracketed(address), place.port, place.scheme, pool_kwargs=name)
        try:
            with _exchange(
                pool,
                method,
                "/",
                target=target_of(url),
                body=body,
                headers={**headers, "Host": _bracketed(place.host) + port},
            ) as response:
                yield response
        except Unreached:
            self._turn += 1
            raise


class OperatorsSession:
    """Connections to one host that the operator named: trusted and proxied as the environment says. With a proxy, which
    looks the name up itself, only the URL is judged."""

    def __init__(self, guard: Guard, url: str, *, blocksize: int = 1 << 16) -> None:
        """Raises ConfigError."""
        self._guard = guard
        self._proxied = bool(proxy_for(url))
        self._pools = operators_pools(url, kind=Watched, blocksize=blocksize)

    def close(self) -> None:
        self._pools.clear()

    @contextmanager
    def exchange(self, method: str, url: str, *, headers: Mapping[str, str], body: Any = None) -> Iterator[Response]:
        """As `Session.exchange`."""
        self._guard.check(url)
        if not self._proxied:
            place = parse_url(url)
            self._guard.address(place.host, place.port)
        with _exchange(self._pools, method, url, target=target_of(url), headers=headers, body=body) as response:
            yield response


@contextmanager
def _exchange(
    pool: Any, method: str, url: str, *, target: str, headers: Mapping[str, str], body: Any
) -> Iterator[Response]:
    """One request of a pool, or of pools, which find the host in `url`. Raises Unreached, also while its answer is
    read."""
    limit = in_force()
    agent = (
        {} if any(name.lower() == "user-agent" for name in headers) else {"User-Agent": f"xalora-miner/{__version__}"}
    )
    try:
        with verbatim(target):
            opened = pool.urlopen(
                method,
                url,
                body=body,
                headers={**headers, **agent},
                timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, limit.patience), read=limit.left),
                redirect=False,
                retries=False,
                preload_content=False,
            )
        with opened as response:
            yield response
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # without the cause: its text holds addresses and the URL, whose query may be a secret
        failure = unreached(error, _SERVER)
        late = limit.expired or isinstance(error, urllib3.exceptions.ReadTimeoutError)  # which waits for what was left
        raise (Unreached(f"{_SERVER} {limit.why}", kind=failure.kind) if late else failure) from None
    if limit.expired:  # a cut also ends a body that has no length
        raise Unreached(f"{_SERVER} {limit.why}", kind="connection")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def drain(response: Response, most: int = 1 << 18) -> None:
    """Read a rest of at most `most` bytes, so that the connection can be used again. It drops one with more."""
    unread = response.length_remaining
    if unread is not None and unread <= most:
        response.read(most, decode_content=False)


def redirect(response: Response, url: str) -> str | None:
    """The absolute URL that an answer to `url` redirects to, not yet judged; None if it is not a redirect."""
    location = response.headers.get("Location")
    if location is None or response.status not in _REDIRECTS:
        return None
    try:
        return _joined(url, location.encode("latin-1").decode())  # http.client decodes headers as latin-1
    except ValueError:
        raise Refused("the server redirects to an invalid URL") from None


def _joined(base: str, location: str) -> str:
    """As `urljoin` (which judges it: ValueError), but a place that is spelled out stays as it is spelled."""
    joined = urljoin(base, location)
    page = re.split(r"[?#]", base, maxsplit=1)[0]
    scheme, _, rest = page.partition("://")
    host, _, path = rest.partition("/")
    if re.match(r"[a-z][a-z0-9+.-]*://[^/?#]", location, re.IGNORECASE):
        return location
    if location.startswith("//"):
        return f"{scheme}:{location}"
    if location.startswith("/"):
        return f"{scheme}://{host}{location}"
    if location.startswith("?"):
        return page + location
    steps = re.split(r"[?#]", location, maxsplit=1)[0].split("/")
    if re.match(r"[^:/?#]+:|#|\Z", location) or "." in steps or ".." in steps:
        return joined
    return f"{scheme}://{host}/{path[: path.rfind('/') + 1]}{location}"
