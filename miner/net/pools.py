"""Kept connections that the deadline in force can cut.

Promises: certificates are checked against certifi's list; no connection waits beyond the deadline it is used under,
be it in the TLS handshake or in a kept connection. Never: reads proxies or credentials from the environment.
"""

from __future__ import annotations

import socket
from typing import Any

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection

from miner.net.addresses import require_elsewhere, require_public
from miner.net.deadline import in_force


class Watched(HTTPConnection):
    """Goes wherever it is sent."""

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
        """Raise Refused if nothing may be sent to where `sock` is connected."""

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            in_force().watch(self.sock)
        super().request(*args, **kwargs)


class Public(Watched):
    """Goes to public addresses alone, outside of this machine's network. Its host has to be an IP address.

    This is the second judgement: `Guard` chose the address after judging all that the name has.
    """

    def _new_conn(self) -> socket.socket:
        require_public([self.host])
        return super()._new_conn()

    def _require_allowed(self, sock: socket.socket) -> None:
        require_elsewhere(sock.getsockname()[0], sock.getpeername()[0])


class Pools(urllib3.PoolManager):
    """urllib3's pools, with connections of one of the kinds above. Every request needs a `Deadline` around it."""

    def __init__(self, kind: type[Watched] = Watched, **options: Any) -> None:
        super().__init__(cert_reqs="CERT_REQUIRED", ca_certs=DEFAULT_CA_BUNDLE_PATH, **options)

        def of_kind(pool: Any) -> Any:
            connection = type(kind.__name__, (kind, pool.ConnectionCls), {})
            return type(pool.__name__, (pool,), {"ConnectionCls": connection})

        self.pool_classes_by_scheme = {scheme: of_kind(pool) for scheme, pool in self.pool_classes_by_scheme.items()}
