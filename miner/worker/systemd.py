"""sd_notify: tells systemd how the service does, where it asked for that (`man 3 sd_notify`).

A datagram to the socket that NOTIFY_SOCKET names; outside of systemd nothing is sent. It never raises: a service
manager that does not listen is no reason to stop mining.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST = 200  # characters of a field


@dataclass(frozen=True, slots=True)
class Notifier:
    """The service manager's ear; `watchdog` is how often it wants to hear from us, in seconds, or None."""

    address: str = ""
    watchdog: float | None = None

    def tell(self, **fields: str) -> None:
        """Send fields such as READY="1" or STATUS="…", a line each."""
        if not self.address:
            return
        message = "\n".join(f"{name}={value.replace(chr(10), ' ')[:LONGEST]}" for name, value in fields.items())
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.setblocking(False)  # one that does not read must not hold us up
            ear.sendto(message.encode(), address)


def notifier(environ: Mapping[str, str]) -> Notifier:
    """From the environment that systemd gives to a service of `Type=notify`."""
    usec = environ.get("WATCHDOG_USEC", "")
    return Notifier(
        address=environ.get("NOTIFY_SOCKET", ""),
        watchdog=int(usec) / 1e6 / 2 if usec.isdigit() and int(usec) else None,  # twice as often as is asked
    )
