"""Runs a devnet: in a thread, or in the foreground.

When it reports its URL, it answers. Stopping leaves no thread, socket or temporary folder. Nothing is written to
standard output.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette

from miner.devnet.app import build_app
from miner.devnet.connection import ConnectionProtocol
from miner.devnet.errors import DevnetError
from miner.devnet.options import DevnetOptions
from miner.devnet.state import Devnet, open_devnet

Build = Callable[[Devnet], Starlette]
"""Makes the application of an open devnet; your own one calls `build_app` with additions."""

STOP_GRACE = 0.5
"""Seconds that requests in hand have to end when the devnet stops."""


@contextmanager
def serve(options: DevnetOptions | None = None, *, build: Build = build_app) -> Iterator[str]:
    """A devnet in a thread, for as long as the block lasts; yields its URL. Raises DevnetError if it cannot start."""
    options = options or DevnetOptions()
    started: Future[_Server] = Future()
    with closing(_listen(options)) as sock, ThreadPoolExecutor(1, thread_name_prefix="devnet") as threads:
        running = threads.submit(lambda: asyncio.run(_run(options, sock, started.set_result, build)))
        first: tuple[Future[Any], ...] = (started, running)
        wait(first, return_when=FIRST_COMPLETED)
        if not started.done():
            running.result()  # raises why it did not start
        try:
            yield _url(options, sock)
        finally:
            started.result().should_exit = True
        running.result()


def run_devnet(options: DevnetOptions, *, on_ready: Callable[[str], None], build: Build = build_app) -> None:
    """Serve until SIGINT or SIGTERM. Blocks; `on_ready` gets the URL once it answers. Raises DevnetError."""
    with closing(_listen(options)) as sock:
        url = _url(options, sock)
        asyncio.run(_run(options, sock, lambda _: on_ready(url), build))


class _Server(uvicorn.Server):
    """uvicorn that tells when it answers, releases held requests when it stops, and returns after a signal."""

    def __init__(self, config: uvicorn.Config, *, devnet: Devnet, on_ready: Callable[[_Server], None]) -> None:
        super().__init__(config)
        self._devnet = devnet
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready(self)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._devnet.bell.stop()
        patience = asyncio.get_running_loop().call_later(STOP_GRACE, self._abort_connections)
        await super().shutdown(sockets)
        patience.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but without raising the signal again: cleanup follows."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _run(options: DevnetOptions, sock: socket.socket, on_ready: Callable[[_Server], None], build: Build) -> None:
    async with open_devnet(options) as devnet:
        config = uvicorn.Config(
            build(devnet),
            http=ConnectionProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,  # as nginx: a miner's heartbeat comes every 10 s
        )
        await _Server(config, devnet=devnet, on_ready=on_ready).serve([sock])


def _listen(options: DevnetOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=1024)
    except OSError as error:
        raise DevnetError(
            f"devnet: cannot listen on {options.host} port {options.port}: {error.strerror or error}",
            hint="choose another port, or 0 for any free one",
        ) from error


def _url(options: DevnetOptions, sock: socket.socket) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{sock.getsockname()[1]}"
