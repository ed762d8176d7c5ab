"""The worker process: starts the lanes, watches, reloads and drains them.

The first signal drains, the second cancels the tasks in hand, the third exits at once; the next start answers the rest
from the journal. SIGHUP reloads the configuration: tasks in hand finish under the old one, and an invalid new one
changes nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import structlog

from miner import __version__
from miner.config import Settings
from miner.config.settings import Status
from miner.task.errors import ConfigError, MachineFault
from miner.task.journal import Journal
from miner.telemetry import clock
from miner.telemetry.log import clean
from miner.worker.lanes import Lanes
from miner.worker.systemd import Notifier
from miner.workflows import Library

log = structlog.get_logger()

WATCH = 0.5  # seconds between checks of the lanes
PRUNE_EVERY = 3600.0
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h

Configured = tuple[Settings, Library]


class StatusServer(Protocol):
    """The dashboard, as the worker sees it; never stops mining."""

    @property
    def settings(self) -> Status: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


Serve = Callable[["Worker", Settings, Journal], StatusServer]
"""Builds a worker's status server; injected, since the dashboard is above this room."""


class Worker:
    """Call `run` in the main thread; `stop` and `reload` from any thread or signal handler."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        *,
        read_again: Callable[[], Configured] | None = None,
        serve: Serve | None = None,
        notifier: Notifier | None = None,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        """`read_again` returns the new configuration, or raises ConfigError. Locks the state folder."""
        _require_id(settings)
        self._configured = (settings, library)
        self._read_again = read_again
        self._serve = serve
        self._notifier = notifier or Notifier()
        self._clock = clock
        self.started_at = clock()
        self.lanes: Lanes  # current ones, set by `run`
        self.paused = False
        self._status_server: StatusServer | None = None
        self._stops = 0
        self._reload = False
        self._woken = threading.Event()
        self._journal = Journal(settings.state.dir)
        self._pruned_at = float("-inf")
        self._notified_at = float("-inf")

    def run(self) -> int:
        """Block until drained; return the exit code."""
        next_configured: Configured | None = self._configured
        while next_configured is not None:
            self._configured = next_configured
            lanes = self.lanes = Lanes(*self._configured, journal=self._journal)
            lanes.set_leasing(not self.paused)
            next_configured = self._watch(lanes)
            if lanes.failed:
                self._notifier.notify(STOPPING="1", STATUS="stopped by a bug")
                lanes.abandon()
                return EXIT_BUG
            lanes.join(next_settings=next_configured[0] if next_configured else None)
        self._notifier.notify(STOPPING="1", STATUS="stopped")
        if self._status_server is not None:
            self._status_server.stop()
        self._journal.close()
        log.info("stopped")
        return 0

    def stop(self) -> None:
        """First call: drain. Second: cancel. Third: exit at once."""
        self._stops += 1
        self._woken.set()
        if self._stops >= 3:
            os._exit(1)

    def drain(self) -> None:
        """As the first `stop`. Idempotent."""
        if not self._stops:
            self.stop()

    @property
    def draining(self) -> bool:
        return self._stops > 0

    def pause(self) -> None:
        """Lease nothing until `resume` or a restart; a reload keeps it."""
        self._set_leasing(False)

    def resume(self) -> None:
        self._set_leasing(True)

    def _set_leasing(self, wanted: bool) -> None:
        if self.paused is not wanted:
            return
        self.paused = not wanted
        self.lanes.set_leasing(wanted)
        if wanted:
            log.info("resumed", next="taking new tasks")
        else:
            log.info(
                "paused", in_hand=self.lanes.in_hand, next="finishing tasks in hand; to resume: xalora-miner resume"
            )

    def reload(self) -> None:
        """Reload the configuration soon."""
        self._reload = True
        self._woken.set()

    def take_signals(self) -> None:
        """Handle SIGTERM and SIGINT (stop) and SIGHUP (reload). Call from the main thread."""

        def handler(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                self.reload()
            else:
                self.stop()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, handler)

    # ---- watching ---------------------------------------------------------------------------------

    def _watch(self, lanes: Lanes) -> Configured | None:
        """Block until all lanes end or one fails; return the next configuration, if any."""
        next_configured: Configured | None = None
        abort_at = float("inf")
        lanes.start()
        self._notifier.notify(READY="1", STATUS="starting")  # ends RELOADING, too
        log.info("started", version=__version__, miner=self._configured[0].miner.id, comfyui=lanes.urls)
        while lanes.alive and not lanes.failed:
            self._woken.wait(WATCH)
            self._woken.clear()
            self._update_status_server()
            self._housekeep(lanes)
            if self._reload:
                self._reload = False
                next_configured = self._reread() or next_configured
            if abort_at == float("inf") and (self._stops or next_configured):
                abort_at = self._clock() + self._configured[0].miner.drain_timeout
                log.info("draining", in_hand=lanes.in_hand, next="a second signal cancels the tasks in hand")
                self._notifier.notify(**({"STOPPING": "1"} if self._stops else {"RELOADING": "1"}))
                lanes.drain()
            if abort_at != 0.0 and (self._stops > 1 or self._clock() >= abort_at):
                abort_at = 0.0
                log.warning("interrupting", in_hand=lanes.in_hand, next="answering that the miner is shutting down")
                lanes.abort()
        return None if self._stops else next_configured

    def _update_status_server(self) -> None:
        """Start or stop it as configured; after the lanes, to keep their first request fast."""
        settings = self._configured[0]
        if self._status_server is not None and self._status_server.settings != settings.status:
            self._status_server.stop()
            self._status_server = None
        if self._status_server is None and self._serve is not None and settings.status.enabled:
            self._status_server = self._serve(self, settings, self._journal)
            self._status_server.start()

    def _housekeep(self, lanes: Lanes) -> None:
        """Prune the journal and notify systemd when due."""
        now = self._clock()
        if now - self._pruned_at >= PRUNE_EVERY:
            self._pruned_at = now
            try:
                self._journal.prune(keep_days=self._configured[0].state.keep_days)
            except MachineFault as fault:
                log.error("journal_not_pruned", reason=fault.message, hint=fault.hint, next="retrying in an hour")
        if now - self._notified_at >= min(self._notifier.watchdog or 10.0, 10.0):
            self._notified_at = now
            self._notifier.notify(WATCHDOG="1", STATUS=clean(lanes.says()))

    def _reread(self) -> Configured | None:
        if self._read_again is None:
            return None
        try:
            settings, library = self._read_again()
            _require_id(settings)
        except ConfigError as error:
            log.error("configuration_refused", reason=error.message, next="keeping the current one")
            return None
        if settings.state.dir != self._configured[0].state.dir:
            log.error("configuration_refused", reason="[state] dir needs a restart", next="keeping the current one")
            return None
        if settings == self._configured[0] and library == self._configured[1]:
            log.info("configuration_unchanged")
            return None
        log.info("configuration_read", next="finishing tasks in hand under the old one")
        return settings, library


def _require_id(settings: Settings) -> None:
    if not settings.miner.id:
        raise ConfigError(
            "[miner] id is not set: it is the EVM address for your earnings",
            hint="set XALORA_MINER_ID=0x…, or id in config.toml",
        )
