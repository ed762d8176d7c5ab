"""The worker process: starts the lanes, watches, reloads and drains them.

The first signal drains, the second cancels the tasks in hand, the third exits at once; the next start answers the rest
from the journal. SIGHUP reloads the configuration: tasks in hand finish under the old one. The lanes of the new one are
built and judged before anything is drained, so one that cannot work changes nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, Protocol

import structlog

from miner import __version__
from miner.config import Settings
from miner.config.settings import Status
from miner.task.errors import ConfigError, MachineFault, MinerError
from miner.task.journal import Journal
from miner.telemetry import clock
from miner.telemetry.audience import Audience
from miner.telemetry.log import clean
from miner.worker import signals
from miner.worker.ending import Ending
from miner.worker.lanes import Lanes
from miner.worker.systemd import Notifier
from miner.workflows import Library

log = structlog.get_logger()

WATCH = 0.5  # seconds between checks of the lanes
PRUNE_EVERY = 3600.0
SERVE_AGAIN = 60.0  # seconds between starts of the status server, if its port is in use or it ended by a bug
LAST_WORDS = 60.0  # seconds at most in which /healthz says why, before the worker exits without a ComfyUI
EXIT_FORCED = 1
EXIT_NO_COMFYUI = 69  # EX_UNAVAILABLE of sysexits.h
EXIT_BUG = 70  # EX_SOFTWARE

Configured = tuple[Settings, Library]


class StatusServer(Protocol):
    """The dashboard, as the worker sees it; never stops mining."""

    @property
    def settings(self) -> Status: ...
    @property
    def alive(self) -> bool: ...
    def rehearse(self) -> None:
        """Raise ConfigError if it could not listen."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


Serve = Callable[["Worker", Settings, Journal], StatusServer]
"""Builds a worker's status server; injected, since the dashboard is above this room."""


class Worker:
    """Call `run` in the main thread; `stop` and `reload` from any thread."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        *,
        read_again: Callable[[], Configured] | None = None,
        adopt: Callable[[Settings], None] = lambda _settings: None,
        serve: Serve | None = None,
        notifier: Notifier | None = None,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        """`read_again` returns the new configuration, or raises ConfigError; `adopt` is told if it is accepted."""
        _require_id(settings)
        self._first = (settings, library)
        self._read_again = read_again
        self._adopt = adopt
        self._serve = serve
        self._notifier = notifier or Notifier()
        self._clock = clock
        self.started_at = clock()
        self.lanes: Lanes  # current ones, set by `run`
        self.audience = Audience()  # told by the dashboard
        self.paused = False
        self._status_server: StatusServer | None = None
        self._stops = 0
        self._exit_code = 0
        self._reload = False
        self._woken = threading.Event()
        self._journal: Journal  # set by `run`
        self._served_at = float("-inf")
        self._pruned_at = float("-inf")
        self._notified_at = float("-inf")

    def run(self) -> int:
        """Block until drained; return the exit code. Raises ConfigError, before anything has started, for settings that
        contradict each other or a state folder that cannot be used."""
        self._journal = Journal(self._first[0].state.dir)
        coming: Lanes | None
        try:
            coming = Lanes(*self._first, journal=self._journal, audience=self.audience)
        except BaseException:
            self._journal.close()  # else the next start would take this for a crash
            raise
        while coming is not None:
            lanes = self.lanes = coming
            lanes.set_leasing(not self.paused)
            coming = self._watch(lanes)
            if lanes.failed:
                self._notifier.notify(STOPPING="1", STATUS="stopped by a bug")
                lanes.abandon()
                return EXIT_BUG
            lanes.join(next_settings=coming.settings if coming else None)
        self._notifier.notify(STOPPING="1", STATUS="stopped")
        if self._status_server is not None:
            self._status_server.stop()
        self._journal.close()
        log.info("stopped")
        return self._exit_code

    def stop(self) -> None:
        """First call: drain. Second: cancel. Third: exit at once, whatever hangs."""
        self._stops += 1
        if self._stops >= 3:
            os._exit(EXIT_FORCED)
        self._woken.set()

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
        signals.listen(lambda number: self.reload() if number == signal.SIGHUP else self.stop())

    # ---- watching ---------------------------------------------------------------------------------

    def _watch(self, lanes: Lanes) -> Lanes | None:
        """Block until all lanes end or one fails; return the lanes of the next configuration, if any."""
        coming: Lanes | None = None
        ending = Ending(lanes, clock=self._clock)
        lanes.start()
        self._notifier.notify(READY="1", STATUS="starting")  # ends RELOADING, too
        log.info("started", version=__version__, miner=lanes.settings.miner.id, comfyui=lanes.urls)
        while lanes.alive and not lanes.failed:
            self._woken.wait(WATCH)
            self._woken.clear()
            try:
                self._update_status_server(lanes.settings)
                self._housekeep(lanes)
            except Exception:
                log.exception("watch_crashed", next="going on; please report this bug")
            if self._reload:
                self._reload = False
                coming = self._build_again(coming or lanes) or coming
            wanted = self._stops > 0 or coming is not None or self._without_comfyui(lanes)
            if wanted and not ending.began:
                self._notifier.notify(**({"STOPPING": "1"} if coming is None else {"RELOADING": "1"}))
            if ending.look(wanted=wanted, at_once=self._stops > 1):
                self._give_up(lanes)
        return None if self._stops or self._exit_code else coming

    def _without_comfyui(self, lanes: Lanes) -> bool:
        """Whether to exit because no managed ComfyUI has been ready for too long, such as without its GPU.

        What supervises the miner can then make it anew: only a new container gets a driver back.
        """
        limit = lanes.settings.comfyui.give_up_after
        if not self._exit_code and lanes.without_comfyui_for >= limit + min(limit, LAST_WORDS):
            self._exit_code = EXIT_NO_COMFYUI
            log.error(
                "comfyui_given_up",
                reason=lanes.says(),
                hint="see ComfyUI's log, nvidia-smi and dmesg",
                next=f"exiting with code {EXIT_NO_COMFYUI}, so that the service manager starts the miner anew",
            )
        return bool(self._exit_code)

    def _give_up(self, lanes: Lanes) -> NoReturn:
        """End the process although a thread hangs. The journal has the tasks in hand, and counts this as a crash."""
        log.error("giving_up", hangs=lanes.hanging, next="exiting; the next start answers the tasks in hand")
        self._notifier.notify(STOPPING="1", STATUS="a thread hangs")
        lanes.abandon(stop_comfyui=True)
        sys.stdout.flush()
        os._exit(EXIT_FORCED)

    def _update_status_server(self, settings: Settings) -> None:
        """Start or stop it as configured, or start it again; after the lanes, to keep their first request fast."""
        server = self._status_server
        ended = server is not None and not server.alive and self._clock() - self._served_at >= SERVE_AGAIN
        if server is not None and (ended or server.settings != settings.status):
            server.stop()
            server = self._status_server = None
        if server is None and self._serve is not None and settings.status.enabled:
            self._served_at = self._clock()
            self._status_server = self._serve(self, settings, self._journal)
            self._status_server.start()

    def _housekeep(self, lanes: Lanes) -> None:
        """Prune the journal and notify systemd when due."""
        now = self._clock()
        if now - self._pruned_at >= PRUNE_EVERY:
            self._pruned_at = now
            try:
                self._journal.prune(keep_days=lanes.settings.state.keep_days)
            except MachineFault as fault:
                log.error("journal_not_pruned", reason=fault.message, hint=fault.hint, next="retrying in an hour")
        if now - self._notified_at >= min(self._notifier.watchdog or 10.0, 10.0):
            self._notified_at = now
            self._notifier.notify(WATCHDOG="1", STATUS=clean(lanes.says()))

    # ---- reloading --------------------------------------------------------------------------------

    def _build_again(self, present: Lanes) -> Lanes | None:
        """The lanes of the new configuration, not started; None if it is the same or cannot work, which is logged."""
        try:
            return self._build(present)
        except MinerError as error:
            log.error("configuration_refused", reason=error.message, hint=error.hint, next="keeping the current one")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.exception(
                "configuration_refused", reason=reason, next="keeping the current one; please report this bug"
            )
        return None

    def _build(self, present: Lanes) -> Lanes | None:
        """Raises whatever keeps the new lanes or their status server from working."""
        if self._read_again is None:
            return None
        settings, library = self._read_again()
        _require_id(settings)
        if settings.state.dir != present.settings.state.dir:
            raise ConfigError("[state] dir needs a restart")
        if settings == present.settings and library == present.library:
            log.info("configuration_unchanged")
            return None
        lanes = Lanes(settings, library, journal=self._journal, audience=self.audience)
        lanes.rehearse(beside=self.lanes)
        if self._serve is not None and settings.status.enabled and self._moves(settings.status):
            self._serve(self, settings, self._journal).rehearse()
        self._adopt(settings)
        log.info("configuration_read", next="finishing tasks in hand under the old one")
        return lanes

    def _moves(self, status: Status) -> bool:
        """Whether the status server would listen at another port than now."""
        return self._status_server is None or self._status_server.settings.port != status.port


def _require_id(settings: Settings) -> None:
    if not settings.miner.id:
        raise ConfigError(
            "[miner] id is not set: it is the EVM address for your earnings",
            hint="set XALORA_MINER_ID=0x…, or id in config.toml",
        )
