"""`python -m miner.engine`: serves until it is stopped or its parent is gone.

When it is ready it writes one line to stdout, its URL; logs go to stderr. Exit codes: 0 after SIGTERM, SIGINT or the
end of the parent; 1 if a port or file is unavailable; 2 for a wrong flag.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import uvicorn

from miner.engine.app import build_app
from miner.engine.flags import Flags, parse
from miner.engine.folders import prepare
from miner.engine.modelpaths import ModelPathsError
from miner.engine.nodes import Node

log = logging.getLogger("engine")


class Server(uvicorn.Server):
    """uvicorn that says when it is ready, exits with 0 on a signal, and watches its parent."""

    def __init__(self, config: uvicorn.Config, *, url: str, parent: int | None) -> None:
        super().__init__(config)
        self._url = url
        self._parent = parent

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            sys.stdout.write(f"{self._url}\n")
            sys.stdout.flush()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal again at the end and exit with -15; here a stop is a success."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; true: end."""
        if self._parent is not None and os.getppid() != self._parent:
            log.info("the parent is gone")
            return True
        return await super().on_tick(counter)


def main(nodes: Iterable[Node] = ()) -> int:
    """Serve as the command line says; returns the exit code. An embedding program may add `nodes`."""
    flags = parse(sys.argv[1:])
    _log(flags)
    with contextlib.ExitStack() as stack:
        base = flags.base or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xalora-engine-")))
        try:
            folders = prepare(flags, base)
            listener = stack.enter_context(_bind(flags.host, flags.port))
        except (OSError, ModelPathsError) as error:
            log.error("cannot start: %s", error)
            return 1
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        config = uvicorn.Config(
            build_app(flags, folders, nodes),
            lifespan="on",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # ComfyUI sends none
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        Server(config, url=url, parent=flags.parent).run(sockets=[listener])
    return 0


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket with an explicit protocol: only then does asyncio turn Nagle's delay (40 ms) off."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _log(flags: Flags) -> None:
    logging.basicConfig(
        stream=sys.stdout if flags.log_to_stdout else sys.stderr,
        level={"DETAIL": "DEBUG"}.get(flags.level, flags.level),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name in ("PIL", "uvicorn.error"):  # they log every chunk of every file, and every connection
        logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    raise SystemExit(main())
