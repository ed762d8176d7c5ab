"""A network that a test takes from a running program, by a library that is preloaded into it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class NoNetwork:
    """Start a program with `environ`; then it loses its names or its routes on demand. Needs a C compiler."""

    def __init__(self, folder: Path) -> None:
        library, self._file = folder / "no_network.so", folder / "no_network"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        self.environ = {"LD_PRELOAD": str(library), "NO_NETWORK": str(self._file)}

    @contextmanager
    def names(self) -> Iterator[None]:
        """No name is resolved: its resolver does not answer."""
        with self._without("names"):
            yield

    @contextmanager
    def routes(self, *, but: int) -> Iterator[None]:
        """No new connection, but to this port: the network is unreachable."""
        with self._without(f"routes {but}"):
            yield

    @contextmanager
    def _without(self, what: str) -> Iterator[None]:
        self._file.write_text(what)
        try:
            yield
        finally:
            self._file.unlink()
