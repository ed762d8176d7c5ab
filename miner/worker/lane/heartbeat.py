"""The heartbeat: regular requests to the sequencer while tasks are in hand.

The first follows soon after the lease, since a sequencer's silence counts only once it has said `running`: a cancel
would not show before. Ends after the lane's other loops, so that draining tasks keep their leases. Advertises no
workflows if that could lease a task beyond the limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from miner.task.errors import Retryable
from miner.task.ledger import Ledger
from miner.task.policy import next_beat
from miner.telemetry import clock
from miner.telemetry.liveness import REMOTE, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.gate import Gate
from miner.worker.lane.poll import Poll

log = structlog.get_logger()

WAKE = 0.5  # seconds between checks, at most


@dataclass(slots=True, kw_only=True)
class Heartbeat:
    """One lane's heartbeat; `run` ends when `stop` is set, at the next change of the ledger."""

    ledger: Ledger
    gate: Gate
    capabilities: Capabilities
    poll: Poll
    interval: float
    clock: Callable[[], float] = clock.now
    stop: threading.Event = field(default_factory=threading.Event)
    liveness: Liveness = field(default_factory=Liveness)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        return f"sending a heartbeat every {self.interval:g} s" if self.ledger.view() else "idle: no task in hand"

    def run(self) -> None:
        write_again_at = self.clock() + self.interval
        while not self.stop.is_set():
            version = self.ledger.version
            self.liveness.beat()
            if self.clock() >= write_again_at:
                write_again_at = self.clock() + self.interval
                self.ledger.write_again()
            due = next_beat(self.ledger.view(), asked_at=self.gate.asked_at, interval=self.interval)
            if due is not None and self.clock() >= due:
                self._beat()
            else:
                self.ledger.wait(WAKE if due is None else min(WAKE, due - self.clock()), since=version)

    def _beat(self) -> None:
        ids = self.capabilities.ids(in_hand=self.ledger.workflows) if self._may_advertise() else ()
        self.liveness.beat(2 * REMOTE)  # first waits for a held request
        try:
            self.gate.ask(ids)
        except Retryable as error:
            log.warning("heartbeat_missed", reason=error.message, next=f"retrying in {self.interval:.0f} s")

    def _may_advertise(self) -> bool:
        """Whether advertising leases no task beyond the limit: a sequencer that leases one at a time answers `running`,
        and a lease shows that its limit has changed."""
        return (
            self.gate.one_at_a_time
            and not any(task.answered for task in self.ledger.view())
            and self.poll.not_leasing_reason() is None
        )
