"""The worker: one process, a lane a GPU, one journal; starts its lanes, watches them and drains them.

It promises an orderly end: the first signal drains, the second interrupts what runs, the third exits at once. What is
not answered by then is in the journal, and the next start answers it. SIGHUP reads the configuration again: what is in
hand is finished under the old one, and a wrong new one changes nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import structlog

from miner import __version__
from miner.config import Settings
from miner.crew import Crew
from miner.dashboard import Dashboard, require_token
from miner.errors import ConfigError, MachineFault
from miner.journal import Journal
from miner.log import clean
from miner.systemd import Notifier
from miner.workflows import Library

log = structlog.get_logger()

WATCH = 0.5  # seconds between two looks at the lanes
PRUNE_EVERY = 3600.0
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h

Configured = tuple[Settings, Library]


class Worker:
    """Build it, then `run` it from the main thread; `stop` and `reload` may come from any thread or signal handler."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        *,
        read_again: Callable[[], Configured] | None = None,
        notifier: Notifier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read_again` gives the configuration anew, or raises ConfigError. Takes the state folder's lock."""
        _require_id(settings)
        require_token(settings.status)
        self._configured = (settings, library)
        self._read_again = read_again
        self._notifier = notifier or Notifier()
        self._clock = clock
        self.started_at = time.time()
        self.crew: Crew  # the present one, from `run` on
        self.paused = False
        self._dashboard: Dashboard | None = None
        self._stops = 0
        self._reload = False
        self._woken = threading.Event()
        self._journal = Journal(settings.state.dir)
        self._pruned_at = float("-inf")
        self._told_at = float("-inf")

    def run(self) -> int:
        """Block until it has drained; gives the exit code."""
        next_one: Configured | None = self._configured
        while next_one is not None:
            self._configured = next_one
            crew = self.crew = Crew(*self._configured, journal=self._journal)
            crew.want_more(not self.paused)
            next_one = self._watch(crew)
            if crew.failed:
                self._notifier.tell(STOPPING="1", STATUS="stopped by a bug")
                crew.abandon()
                return EXIT_BUG
            crew.join(next_settings=next_one[0] if next_one else None)
        self._notifier.tell(STOPPING="1", STATUS="stopped")
        if self._dashboard is not None:
            self._dashboard.stop()
        self._journal.close()
        log.info("stopped")
        return 0

    def stop(self) -> None:
        """The first call drains, the second interrupts, the third exits at once."""
        self._stops += 1
        self._woken.set()
        if self._stops >= 3:
            os._exit(1)

    def drain(self) -> None:
        """What the first `stop` does; more calls change nothing."""
        if not self._stops:
            self.stop()

    @property
    def draining(self) -> bool:
        return self._stops > 0

    def pause(self) -> None:
        """Take no new task until `resume`. It holds over a reload, and not over a restart."""
        self._want_more(False)

    def resume(self) -> None:
        self._want_more(True)

    def _want_more(self, wanted: bool) -> None:
        if self.paused is not wanted:
            return
        self.paused = not wanted
        self.crew.want_more(wanted)
        if wanted:
            log.info("resumed", next="taking new tasks")
        else:
            log.info("paused", in_hand=self.crew.in_hand, next="finishing what is in hand; xalora-miner resume ends it")

    def reload(self) -> None:
        """Read the configuration again, soon."""
        self._reload = True
        self._woken.set()

    def take_signals(self) -> None:
        """SIGTERM and SIGINT stop it, SIGHUP reloads it. Call from the main thread."""

        def handler(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                self.reload()
            else:
                self.stop()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, handler)

    # ---- watching ---------------------------------------------------------------------------------

    def _watch(self, crew: Crew) -> Configured | None:
        """Until every lane has ended or one has failed; gives the configuration to go on with, if any."""
        next_one: Configured | None = None
        abort_at = float("inf")
        crew.start()
        self._notifier.tell(READY="1", STATUS="starting")  # after a reload, too: RELOADING holds until then
        log.info("started", version=__version__, miner=self._configured[0].miner.id, comfyui=crew.urls)
        while crew.alive and not crew.failed:
            self._woken.wait(WATCH)
            self._woken.clear()
            self._keep_dashboard()
            self._look_after(crew)
            if self._reload:
                self._reload = False
                next_one = self._reread() or next_one
            if abort_at == float("inf") and (self._stops or next_one):
                abort_at = self._clock() + self._configured[0].miner.drain_timeout
                log.info("draining", in_hand=crew.in_hand, next="a second signal interrupts what runs")
                self._notifier.tell(**({"STOPPING": "1"} if self._stops else {"RELOADING": "1"}))
                crew.drain()
            if abort_at != 0.0 and (self._stops > 1 or self._clock() >= abort_at):
                abort_at = 0.0
                log.warning("interrupting", in_hand=crew.in_hand, next="answering that the miner is shutting down")
                crew.abort()
        return None if self._stops else next_one

    def _keep_dashboard(self) -> None:
        """Have the one that is configured. It starts a moment after the lanes, whose first request comes first."""
        settings = self._configured[0]
        if self._dashboard is not None and self._dashboard.settings != settings.status:
            self._dashboard.stop()
            self._dashboard = None
        if self._dashboard is None and settings.status.enabled:
            self._dashboard = Dashboard(settings.status, controls=self, journal=self._journal, state=settings.state.dir)
            self._dashboard.start()

    def _look_after(self, crew: Crew) -> None:
        """What is due now and then, whatever the lanes do."""
        now = self._clock()
        if now - self._pruned_at >= PRUNE_EVERY:
            self._pruned_at = now
            try:
                self._journal.prune(keep_days=self._configured[0].state.keep_days)
            except MachineFault as fault:
                log.error("journal_not_pruned", reason=fault.message, hint=fault.hint, next="again in an hour")
        if now - self._told_at >= min(self._notifier.watchdog or 10.0, 10.0):
            self._told_at = now
            self._notifier.tell(WATCHDOG="1", STATUS=clean(crew.says()))

    def _reread(self) -> Configured | None:
        if self._read_again is None:
            return None
        try:
            settings, library = self._read_again()
            _require_id(settings)
            require_token(settings.status)
        except ConfigError as error:
            log.error("configuration_refused", reason=error.message, next="going on with the one in force")
            return None
        if settings.state.dir != self._configured[0].state.dir:
            log.error("configuration_refused", reason="[state] dir changes only with a restart", next="going on")
            return None
        if settings == self._configured[0] and library == self._configured[1]:
            log.info("configuration_unchanged")
            return None
        log.info("configuration_read", next="finishing what is in hand under the old one")
        return settings, library


def _require_id(settings: Settings) -> None:
    if not settings.miner.id:
        raise ConfigError(
            "[miner] id is not set: it is the EVM address that your earnings go to",
            hint="set XALORA_MINER_ID=0x…, or id in config.toml",
        )
