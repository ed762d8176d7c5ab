"""Polling the sequencer for a task, whenever that makes sense, and never more often than it should.

One call asks once or waits once. What is leased is in the ledger. It says once a minute why it does not ask.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from miner.comfy.host import ComfyHost
from miner.machine.disk import Disk
from miner.sequencer import Reply
from miner.task.errors import Retryable
from miner.task.ledger import Ledger
from miner.task.policy import backoff, idle_delay, return_delay
from miner.telemetry.liveness import REMOTE, TURN, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.gate import Gate

log = structlog.get_logger()

FIRST_PAUSE = 0.5  # seconds at most, after a failure, where the sequencer is asked often
EARLY = 1.0  # seconds; a request that was held for that much less than it should have been was let go early
COMPLAIN_EVERY = 60.0  # seconds between two lines about the same trouble
WAKE = 1.0  # seconds between two looks at what nobody tells of


@dataclass(slots=True, kw_only=True)
class Poll:
    """One lane's polling; used by its prepare loop alone."""

    ledger: Ledger
    gate: Gate
    host: ComfyHost
    capabilities: Capabilities
    disk: Disk
    liveness: Liveness
    poll_interval: float  # seconds
    wait: float  # seconds that the sequencer may hold a request
    prefer_warm: bool
    clock: Callable[[], float] = time.time
    doing: str = "starting"
    _warm_first: bool = False  # a task came since the last request that offered everything
    _failures: int = 0
    _heard: bool = False  # the last request was answered: until then none is held, so that a lost lease is heard of
    _complaint: str = ""
    _complained_at: float = 0.0
    _rng: random.Random = field(default_factory=random.Random)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        if self.gate.wants_more:
            return self.doing
        return "paused: finishing tasks in hand" if self.ledger.held else "paused: not leasing"

    def once(self, version: int) -> None:
        """One request, or one wait until a request makes sense again; a change since the ledger's `version` ends it."""
        if not self.gate.wants_more:
            self.farewell()
            self.ledger.wait(WAKE, since=version)
        elif not self.gate.has_room():
            self.ledger.wait(WAKE, since=version)
        elif (trouble := self.trouble()) is not None:
            self.doing = f"waiting: {trouble}"
            self._complain(trouble)
            self.ledger.wait(WAKE, since=version)
        elif (
            ids := self.capabilities.ids_ahead(in_hand=self.ledger.workflows)
            if self.ledger.held
            else self.capabilities.ids()
        ):
            self._request(ids, version)
        else:  # nothing is known to end in time behind what is in hand
            self.ledger.wait(WAKE, since=version)

    def farewell(self) -> None:
        """A request that a drain or a pause cut short may have leased a task: ask once more, for nothing new, so that
        one which never arrived is answered now and not after the next start."""
        if self._failures:
            self._failures = 0
            with contextlib.suppress(Retryable):
                self.gate.ask(())

    def _request(self, ids: Collection[str], version: int) -> None:
        idle = self.ledger.held == 0
        self.doing = "waiting for a task" if idle else "looking for the next task"
        first, back = not self._heard, self._failures > 0
        wait = self.wait if idle and not first else 0.0
        asked_at = self.clock()
        self.liveness.beat(wait + REMOTE)
        try:
            reply = self._ask(ids, wait)
        except Retryable as error:
            self._failed(error, version, pace=self.wait if idle else 0.0)
            return
        self._failures, self._complaint, self._heard = 0, "", True
        if reply.lease is not None:
            self._warm_first = self.prefer_warm
            return
        early = reply.held_for and self.clock() - asked_at < reply.held_for - EARLY
        if early or (back and idle and self.wait):
            self.ledger.wait(return_delay(self.wait, rng=self._rng), since=version)
        elif not (idle and (first or reply.held_for)):
            self.ledger.wait(idle_delay(self.poll_interval, rng=self._rng), since=version)

    def _ask(self, ids: Collection[str], wait: float) -> Reply:
        """For what is warm first, and only then for all: loading another model can take longer than a task."""
        if self._warm_first and (warm := self.capabilities.warm_ids(ids)):
            self._warm_first = False
            reply = self.gate.ask(warm)
            if reply.lease is not None or reply.running is not None:
                return reply
        return self.gate.ask(ids, wait=wait)

    def trouble(self) -> str | None:
        """Why it would be wrong to ask for a task now, in a sentence."""
        if not self.host.ready.is_set():
            return f"ComfyUI is not ready ({self.host.trouble})"
        if self.disk.low():
            return f"less than {self.disk.least_gb:g} GB of disk are free"
        if not self.capabilities.runnable:
            return "no enabled workflow can run on this machine"
        if not self.capabilities.has_ids:
            return "no workflow id maps to a workflow that can run; see [workflows] ids"
        if not self.capabilities.ids(in_hand=self.ledger.workflows):
            return "each workflow that can run is resting after faults of this machine"
        return None

    def _complain(self, trouble: str) -> None:
        """Say it once a minute, and at once when it is new."""
        if trouble != self._complaint or self.clock() - self._complained_at >= COMPLAIN_EVERY:
            self._complaint, self._complained_at = trouble, self.clock()
            reasons = {name: r[0].text for name, r in self.capabilities.verdicts.items() if r}
            log.warning("not_leasing", reason=trouble, workflows=reasons or None, next="asking when that is over")

    def _failed(self, error: Retryable, version: int, *, pace: float) -> None:
        """`pace` are the seconds between two requests where all goes well: the first pause is about as long, so that a
        fleet whose held requests all fail in one moment does not come back in one."""
        self._failures += 1
        self._heard = False
        base = max(FIRST_PAUSE, pace)
        pause = backoff(self._failures, rng=self._rng, base=base, at_least=error.retry_after or 0.0)
        self.doing = f"waiting for the sequencer: {error.message}"
        log.warning("lease_request_failed", reason=error.message, hint=error.hint, next=f"retrying in {pause:.1f} s")
        self.liveness.beat(pause + TURN)
        self.ledger.wait(pause, since=version)
