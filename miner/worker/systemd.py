"""sd_notify: reports the service's state to systemd (`man 3 sd_notify`).

Sends datagrams to NOTIFY_SOCKET, and nothing outside of systemd. Never raises: mining continues without systemd.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass

MAX_LENGTH = 200  # characters of a field


@dataclass(frozen=True, slots=True)
class Notifier:
    """`watchdog`: the notification interval in seconds, or None."""

    address: str = ""
    watchdog: float | None = None

    def notify(self, **fields: str) -> None:
        """Send fields such as READY="1" or STATUS="…", one per line."""
        if not self.address:
            return
        message = "\n".join(f"{name}={value.replace(chr(10), ' ')[:MAX_LENGTH]}" for name, value in fields.items())
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # do not wait for a slow reader
            sock.sendto(message.encode(), address)


def notifier(environ: Mapping[str, str]) -> Notifier:
    """From systemd's environment for `Type=notify`."""
    usec = environ.get("WATCHDOG_USEC", "")
    return Notifier(
        address=environ.get("NOTIFY_SOCKET", ""),
        watchdog=int(usec) / 1e6 / 2 if usec.isdigit() and int(usec) else None,  # twice as often as required
    )
