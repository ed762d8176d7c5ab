"""The server's thread: listens, serves, samples the GPUs, and ends with the worker.

Never stops mining: a port in use or a failing page costs only the page. Imports its dependencies in its own thread.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from miner.config.settings import Status
from miner.dashboard.bind import listen, url_of
from miner.task.errors import ConfigError
from miner.task.journal import Journal
from miner.telemetry import clock

if TYPE_CHECKING:
    from miner.dashboard.gpus import Gpus
    from miner.dashboard.snapshot import Controls

log = structlog.get_logger()

PORT_HINT = "stop the other miner, set XALORA_STATUS_PORT, or XALORA_STATUS_ENABLED=false"
STOP_GRACE = 1  # seconds for open requests to finish
STOP_WAIT = 10.0  # seconds for the thread to end
STOP_POLL = 0.2  # seconds
MAX_CONNECTIONS = 512  # open; `access.MAX_REQUESTS` limits those beside probes


class Dashboard:
    """One server, from `start` to `stop`."""

    def __init__(self, status: Status, *, controls: Controls, journal: Journal, state: Path) -> None:
        """`state`: the journal's folder."""
        self.settings = status
        self._controls = controls
        self._journal = journal
        self._state = state
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it serves, or is about to."""
        return self._thread.is_alive()

    def rehearse(self) -> None:
        """Raise ConfigError if `start` could not listen now."""
        host, port = self.settings.host, self.settings.port
        try:
            listen(host, port).close()
        except OSError as error:
            raise ConfigError(f"[status] {host} port {port}: {error.strerror or error}", hint=PORT_HINT) from error

    def start(self) -> None:
        """Serve in a thread, which logs a port in use."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and join the thread, unless it hangs in a read."""
        self._stopping.set()
        self._thread.join(STOP_WAIT)

    def _run(self) -> None:
        host, port = self.settings.host, self.settings.port
        try:
            listener = listen(host, port)
        except OSError as error:
            log.error(
                "dashboard_not_served",
                reason=f"{host} port {port}: {error.strerror or error}",
                hint=PORT_HINT,
                next="mining without it; trying again in a minute",
            )
            return
        log.info("dashboard", url=url_of(host, listener.getsockname()[1]))
        with closing(listener), ThreadPoolExecutor(1, thread_name_prefix="dashboard-reader") as readers:
            try:
                asyncio.run(self._serve(listener, readers))
            except BaseException:
                log.exception("dashboard_failed", next="mining without it")
                raise

    async def _serve(self, listener: socket.socket, readers: Executor) -> None:
        import uvicorn

        from miner.dashboard.api import Api
        from miner.dashboard.app import build_app
        from miner.dashboard.history import History
        from miner.dashboard.timeouts import RequestTimeout
        from miner.dashboard.view import View

        token = self.settings.token.get_secret_value() if self.settings.token else ""
        with closing(History(self._state)) as history:
            view = View(self._controls, self._journal, history)
            api = Api(view, readers=readers)
            config = uvicorn.Config(
                build_app(api, host=self.settings.host, token=token),
                http=RequestTimeout,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=STOP_GRACE,
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listener]))
            await self._sample_until_stopped(view.gpus, readers)
            await api.hub.close()  # else its streams would not end
            server.should_exit = True
            await serving

    async def _sample_until_stopped(self, gpus: Gpus, readers: Executor) -> None:
        from miner.dashboard.gpus import EVERY

        loop, due = asyncio.get_running_loop(), 0.0
        while not self._stopping.is_set():
            if loop.time() >= due:
                due = loop.time() + EVERY
                await loop.run_in_executor(readers, gpus.sample, clock.now())
            await asyncio.sleep(STOP_POLL)
        await loop.run_in_executor(readers, gpus.close)
