"""Polls the sequencer for tasks at its pace, when the lane can run one.

Each call asks once or waits once. Leases go to the ledger. Logs once a minute why it is not leasing.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from miner.comfy.host import ComfyHost
from miner.machine.disk import Disk
from miner.sequencer import Aborted, Reply
from miner.task.errors import Retryable
from miner.task.ledger import Ledger
from miner.task.policy import backoff, idle_delay, return_delay
from miner.task.stages import Leased, Prepared
from miner.telemetry import clock
from miner.telemetry.liveness import REMOTE, TURN, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.gate import Gate

log = structlog.get_logger()

FIRST_PAUSE = 0.5  # seconds at most, after the first failure, without long polls
EARLY = 1.0  # seconds; a long poll that was shorter by more ended early
LOG_EVERY = 60.0  # seconds between log lines with the same reason
WAKE = 1.0  # seconds between checks


@dataclass(slots=True, kw_only=True)
class Poll:
    """One lane's polling; for its prepare loop only."""

    ledger: Ledger
    gate: Gate
    host: ComfyHost
    capabilities: Capabilities
    disk: Disk
    liveness: Liveness
    poll_interval: float  # seconds
    wait: float  # seconds that the sequencer may hold a request
    prefer_warm: bool
    clock: Callable[[], float] = clock.now
    doing: str = "starting"
    _warm_first: bool = False  # next, advertise only workflows in memory
    _failures: int = 0
    _aborted: bool = False  # the last request was ended by ourselves
    _reachable: bool = False  # the last request succeeded; else ask without waiting, to get a lost lease at once
    _logged_reason: str = ""
    _logged_at: float = 0.0
    _rng: random.Random = field(default_factory=random.Random)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        if self.gate.leasing:
            return self.doing
        return "paused: finishing tasks in hand" if self.ledger.held else "paused: not leasing"

    def once(self, version: int) -> None:
        """Send one request, or wait once; a change since the ledger's `version` ends the wait."""
        if not self.gate.leasing:
            self.collect_lost_lease()
            self.ledger.wait(WAKE, since=version)
        elif not self.gate.may_hold_more():
            self.ledger.wait(WAKE, Prepared, Leased, since=version)
        elif (reason := self.not_leasing_reason()) is not None:
            self.doing = f"waiting: {reason}"
            self._log_not_leasing(reason)
            self.collect_lost_lease()
            self.ledger.wait(WAKE, since=version)
        elif (
            ids := self.capabilities.ids_ahead(in_hand=self.ledger.workflows)
            if self.ledger.held
            else self.capabilities.ids()
        ):
            self._request(ids, version)
        else:  # nothing to prefetch
            self.ledger.wait(WAKE, since=version)

    def collect_lost_lease(self) -> None:
        """Ask once more, without workflows, after a failed request: it may have leased a task, which is then answered
        now and not after the next start."""
        if self._failures or self._aborted:
            self._failures, self._aborted = 0, False
            with contextlib.suppress(Retryable):
                self.gate.ask(())

    def _request(self, ids: Collection[str], version: int) -> None:
        idle = self.ledger.held == 0
        self.doing = "waiting for a task" if idle else "looking for the next task"
        first, back = not self._reachable, self._failures > 0
        wait = self.wait if idle and not first else 0.0
        asked_at = self.clock()
        self.liveness.beat(wait + REMOTE)
        try:
            reply = self._ask(ids, wait)
        except Aborted:  # ask again at once; first without a wait, to get a lost lease
            self._aborted, self._reachable = True, False
            return
        except Retryable as error:
            self._failed(error, version, pace=self.wait if idle else 0.0)
            return
        self._failures, self._aborted, self._logged_reason, self._reachable = 0, False, "", True
        if reply.lease is not None:
            self._warm_first = self.prefer_warm
            return
        early = reply.held_for and self.clock() - asked_at < reply.held_for - EARLY
        if early or (back and idle and self.wait):
            self.ledger.wait(return_delay(self.wait, rng=self._rng), since=version)
        elif not (idle and (first or reply.held_for)):
            self.ledger.wait(idle_delay(self.poll_interval, rng=self._rng), since=version)

    def _ask(self, ids: Collection[str], wait: float) -> Reply:
        """Ask for workflows in memory first, then for all: loading a model can take longer than a task."""
        if self._warm_first and (warm := self.capabilities.warm_ids(ids)):
            self._warm_first = False
            reply = self.gate.ask(warm)
            if reply.lease is not None or reply.running is not None:
                return reply
        return self.gate.ask(ids, wait=wait)

    def not_leasing_reason(self) -> str | None:
        """Why the lane cannot lease now; None: it can."""
        if not self.host.ready.is_set():
            return f"ComfyUI is not ready ({self.host.trouble})"
        if self.disk.low():
            return f"less than {self.disk.least_gb:g} GB of free disk"
        if not self.capabilities.runnable:
            return "no enabled workflow can run on this machine"
        if not self.capabilities.has_ids:
            return "no workflow id maps to a runnable workflow; see [workflows] ids"
        if not self.capabilities.healthy(in_hand=self.ledger.workflows):
            reasons = dict.fromkeys(filter(None, map(self.capabilities.pauses.reason, self.capabilities.runnable)))
            said = f": {next(iter(reasons))}" if reasons else ""
            return f"every runnable workflow is paused after faults of this machine{said}"
        return None

    def _log_not_leasing(self, reason: str) -> None:
        """Log a reason once a minute, and a new one at once."""
        if reason != self._logged_reason or self.clock() - self._logged_at >= LOG_EVERY:
            self._logged_reason, self._logged_at = reason, self.clock()
            reasons = {name: r[0].text for name, r in self.capabilities.verdicts.items() if r}
            log.warning("not_leasing", reason=reason, workflows=reasons or None, next="leasing again when resolved")

    def _failed(self, error: Retryable, version: int, *, pace: float) -> None:
        """`pace`: the usual seconds between requests. The first pause is about as long, so that a fleet whose long
        polls fail together does not return together."""
        self._failures += 1
        self._reachable = False
        base = max(FIRST_PAUSE, pace)
        pause = backoff(self._failures, rng=self._rng, base=base, at_least=error.retry_after or 0.0)
        self.doing = f"waiting for the sequencer: {error.message}"
        log.warning("lease_request_failed", reason=error.message, hint=error.hint, next=f"retrying in {pause:.1f} s")
        self.liveness.beat(pause + TURN)
        self.ledger.wait(pause, since=version)
