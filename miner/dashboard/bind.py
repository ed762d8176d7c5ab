"""The listening address, and whether others can reach it."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from miner.config.settings import Status
from miner.task.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether a name or an address is loopback."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def require_token(status: Status) -> None:
    """Raise ConfigError if others could reach the server without a token."""
    if status.enabled and not is_loopback(status.host) and not status.token:
        raise ConfigError(
            f"[status] host {status.host} is open to others, but [status] token is not set",
            hint="set XALORA_STATUS_TOKEN to a long random string, or keep host at 127.0.0.1",
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, such as for a port in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # Inherited by each connection on Linux; without it, replies wait 40 ms for the ACK of their headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(host: str, port: int) -> str:
    """The URL for a browser on this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared with, not bound to
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
