"""Why devnet cannot start."""

from __future__ import annotations


class DevnetError(Exception):
    """An option, a port or a folder is wrong. `hint` is the next step, or empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
