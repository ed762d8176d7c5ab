"""Which hosts, ports and IP addresses a task may name. Pure: nothing is looked up here.

Promises: an address is public only if IANA's registries make it globally reachable, and a URL is accepted in one
spelling only. Never: guesses what an unusual spelling means.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from miner.task.errors import ConfigError

Allow = frozenset[tuple[str, int]]
"""Host and port pairs that may be reached although they are private; hosts in lower case."""

PORTS = {"http": 80, "https": 443}

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<rest>[/?#][^\x00-\x1f\x7f\\\ud800-\udfff]*)?",
    re.IGNORECASE | re.ASCII,  # without ASCII, `[a-z]` takes the long s and the Kelvin sign too
)
_NOT_IN_TARGET = re.compile(r"[^!-~]+")
_MAX_URL = 8192  # characters; presigned URLs with a session token reach about 2,000
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # the URL standard's "ends in a number"

# What the special-purpose registry (RFC 6890) does not call globally reachable, and more as commented.
_PRIVATE_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's metadata, in a public range
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
# IANA assigns global unicast only, so everything else is refused: loopback, mapped and compatible IPv4, NAT64, unique
# and site-local, link-local, multicast. Within it, these networks wrap IPv4 or belong to no host.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_PRIVATE_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo and ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3ffe::/16",  # the old 6bone
        "3fff::/20",
    )
)


class Refused(Exception):
    """The URL is not allowed. The message is a clause for the task's consumer, without any IP address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a URL points. `host` is in lower case, without brackets."""

    scheme: str
    host: str
    port: int


def parse_allow(entries: Iterable[str]) -> Allow:
    """The pairs in `[network] allow`: `host:port`, IPv6 in brackets. Raises ConfigError."""
    pairs = set()
    for entry in entries:
        match = _URL.fullmatch(f"http://{entry}")
        if (
            match is None
            or match["port"] is None
            or match.end("port") != match.end()
            or not 1 <= int(match["port"]) <= 65535
        ):
            raise ConfigError(f"network.allow: {entry!r} is not host:port", hint="Write it as 192.168.1.5:9000.")
        pairs.add((match["host"].strip("[]").lower(), int(match["port"])))
    return frozenset(pairs)


def parse_url(url: str) -> Place:
    """Where an http or https URL points. Raises Refused for other URLs, user names and non-ASCII hosts."""
    match = _URL.fullmatch(url) if len(url) <= _MAX_URL else None
    if match is None:
        raise Refused("the address is not a plain http or https URL (no user name, the host name in ASCII)")
    scheme = match["scheme"].lower()
    return Place(scheme=scheme, host=match["host"].strip("[]").lower(), port=int(match["port"] or PORTS[scheme]))


def target_of(url: str) -> str:
    """What to ask the host of a URL for: path and query as they are spelled, since a signature may cover every byte.

    Only blanks and what is not ASCII, which would break the request line, is percent-encoded. Raises Refused.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise Refused("the address is not a plain http or https URL")
    rest = (match["rest"] or "").partition("#")[0]
    target = rest if rest.startswith("/") else f"/{rest}"
    return _NOT_IN_TARGET.sub(lambda found: quote(found[0], safe=""), target)


def is_literal(host: str) -> bool:
    """Whether a host is an IP address in any spelling, and not a name."""
    return ":" in host or _NUMERIC.fullmatch(host) is not None


def require_public(addresses: Iterable[str]) -> None:
    """Raise Refused unless all are public IP addresses.

    An IPv4 address must be four decimal numbers: only attackers need `127.1`, `0177.0.0.1` or `2130706433`.
    """
    try:
        public = all(map(is_public, addresses))
    except ValueError:
        raise Refused("the address is not a plain IP address") from None
    if not public:
        raise Refused("the address is not public")


def require_elsewhere(own: str, peer: str) -> None:
    """Raise Refused if `peer`, the address we are connected to, is public but in this machine's own network.

    All IPv6 addresses of a home or a rack are public; a firewall keeps strangers out, and this machine is behind it.
    A network counts as a /56, the largest that a home usually gets (RFC 6177).
    """
    here, there = ipaddress.ip_address(own), ipaddress.ip_address(peer)
    if not is_public(peer):
        return  # the guard has judged it
    both_v6 = isinstance(here, ipaddress.IPv6Address) and isinstance(there, ipaddress.IPv6Address)
    if here == there or (both_v6 and int(here) >> 72 == int(there) >> 72):
        raise Refused("the address is in the miner's own network")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its spelling."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(address: str) -> bool:
    """Whether anyone on the Internet can reach this IP address. Raises ValueError if it is not an IP address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _PRIVATE_V4)
    return ip in _GLOBAL_V6 and not any(ip in network for network in _PRIVATE_V6)
