"""systemd's side of NOTIFY_SOCKET: it hears all that a service tells."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Self


class Manager:
    """Listens at `address` until its `with` ends; `heard` has a dict of fields for each message."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self.heard: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._thread = threading.Thread(target=self._listen, name="systemd", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.address))
        self._thread.join()
        self._socket.close()

    def told(self, field: str) -> list[str]:
        """The values of a field so far."""
        return [message[field] for message in list(self.heard) if field in message]

    def _listen(self) -> None:
        while message := self._socket.recv(1 << 16):
            self.heard.append(dict(line.split("=", 1) for line in message.decode().splitlines()))
