"""The heartbeat: while a task is in hand, the sequencer hears from this miner every so often.

It outlives the other loops of its lane, so that a task which drains keeps its lease. It wants nothing new: where an
ask could bring a task that there is no room for, it offers no workflow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from miner.task.errors import Retryable
from miner.task.ledger import Ledger
from miner.telemetry.liveness import REMOTE, Liveness
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.gate import Gate
from miner.worker.lane.poll import Poll
from miner.worker.lane.shutdown import Shutdown

log = structlog.get_logger()

WAKE = 0.5  # seconds between two looks at the clock


@dataclass(slots=True, kw_only=True)
class Heartbeat:
    """One lane's heartbeat; `run` ends when `stop` is set."""

    ledger: Ledger
    gate: Gate
    capabilities: Capabilities
    poll: Poll
    shutdown: Shutdown
    interval: float
    clock: Callable[[], float] = time.time
    stop: threading.Event = field(default_factory=threading.Event)
    liveness: Liveness = field(default_factory=Liveness)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        return f"sending a heartbeat every {self.interval:g} s" if self.ledger.view() else "idle: no task in hand"

    def run(self) -> None:
        while not self.stop.wait(WAKE):
            self.liveness.beat()
            if self.ledger.view() and self.clock() - self.gate.asked_at >= self.interval:
                self._beat()

    def _beat(self) -> None:
        ids = self.capabilities.ids(in_hand=self.ledger.workflows) if self._harmless() else ()
        self.liveness.beat(2 * REMOTE)  # another request may be under way, and the sequencer may hold it
        try:
            self.gate.ask(ids)
        except Retryable as error:
            log.warning("heartbeat_missed", reason=error.message, next=f"again in {self.interval:.0f} s")

    def _harmless(self) -> bool:
        """Whether offering workflows brings no task that there is no room for: a sequencer that gives one at a time
        answers `running`, and shows when its rule has changed."""
        return (
            self.gate.one_at_a_time
            and not any(task.answered for task in self.ledger.view())
            and self.shutdown.state == "running"
            and self.poll.trouble() is None
        )
