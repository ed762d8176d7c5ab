"""HTTP to addresses that a task names: guarded, pinned, and bounded in time.

Promises: a session connects only to public addresses, or to hosts that the operator allowed by name. Every address of a
name is judged, and the connection goes to one of those, so a DNS answer that changes in between has no effect. The
deadline in force covers look-up, handshake, headers and body together.

Never: follows a redirect, carries cookies, reads proxies or credentials from the environment, or puts an address or a
URL into an error.
"""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin

import urllib3

from miner import __version__
from miner.net.addresses import PORTS, Allow, Refused, is_literal, parse_url, require_public
from miner.net.deadline import in_force
from miner.net.errors import in_words, too_slow
from miner.net.pools import Pools, Public, Watched
from miner.task.errors import Retryable

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to IP addresses, best first. Blocks; raises OSError or UnicodeError."""

Response = urllib3.BaseHTTPResponse

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

    def address(self, host: str, port: int, *, turn: int = 0) -> str:
        """The address to connect to for a name, after judging all of its addresses.

        `turn` counts failed attempts: each uses another address, next one of the other IP version. Blocks until the
        deadline in force at most. Raises Refused and Retryable.
        """
        found = [host] if is_literal(host) else _in_time(lambda: list(self._resolve(host, port)))
        if not found:
            raise Retryable("the host name does not resolve")
        if not self.allows(host, port):
            require_public(found)
        versions = [[a for a in found if ":" in a], [a for a in found if ":" not in a]]
        versions.sort(key=lambda same: found[0] not in same)
        in_turn = [a for pair in itertools.zip_longest(*versions) for a in pair if a is not None]
        return in_turn[turn % len(in_turn)]


def _in_time(look_up: Callable[[], list[str]]) -> list[str]:
    """Look up in another thread, since it cannot be interrupted; the resolver's own limit ends it if it hangs."""
    answer: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def run() -> None:
        with suppress(OSError, UnicodeError):  # an unknown name: an empty answer
            answer.put(look_up())
        answer.put([])

    threading.Thread(target=run, name="resolve", daemon=True).start()
    limit = in_force()
    try:
        return answer.get(timeout=limit.left)
    except queue.Empty:
        raise too_slow(_SERVER, limit.seconds) from None


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
        limit = in_force()
        place = parse_url(url)
        address = self._guard.address(place.host, place.port, turn=self._turn)
        name = {"assert_hostname": place.host, "server_hostname": place.host} if place.scheme == "https" else {}
        port = "" if place.port == PORTS[place.scheme] else f":{place.port}"
        ours = {"Host": _bracketed(place.host) + port, "User-Agent": f"xalora-miner/{__version__}"}
        try:
            pools = self._pools[self._guard.allows(place.host, place.port)]
            pool = pools.connection_from_host(_bracketed(address), place.port, place.scheme, pool_kwargs=name)
            with pool.urlopen(
                method,
                urllib3.util.parse_url(url).request_uri,
                body=body,
                headers={**headers, **ours},
                timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, limit.left), read=limit.left),
                redirect=False,
                retries=False,
                preload_content=False,
            ) as response:
                yield response
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._turn += 1
            # without the cause: its text holds addresses and the URL, whose query may be a secret
            raise (too_slow(_SERVER, limit.seconds) if limit.expired else Retryable(in_words(error, _SERVER))) from None
        if limit.expired:  # a cut also ends a body that has no length
            raise too_slow(_SERVER, limit.seconds)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def redirect(response: Response, url: str) -> str | None:
    """The absolute URL that an answer to `url` redirects to, not yet judged; None if it is not a redirect."""
    location = response.headers.get("Location")
    if location is None or response.status not in _REDIRECTS:
        return None
    try:
        return urljoin(url, location.encode("latin-1").decode())  # http.client decodes headers as latin-1
    except ValueError:
        raise Refused("the server redirects to an invalid URL") from None
