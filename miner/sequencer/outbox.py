"""The outbox: every outcome is submitted until the sequencer has acknowledged it, over restarts too.

An outcome is in the journal before its first submission, so nothing is lost here. The first try is made by the caller,
so that a healthy sequencer is answered at once; what fails is tried again by one thread, with back-off. It never
changes an outcome.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from miner.sequencer import Sequencer
from miner.task.errors import MachineFault, Retryable
from miner.task.journal import Facts, Journal
from miner.task.policy import backoff
from miner.task.stages import Outcome
from miner.telemetry import metrics
from miner.telemetry.liveness import IDLE, REMOTE, Liveness

log = structlog.get_logger()

Closed = Callable[[str], None]
"""Called once with a task's id, when nothing is owed for it any more."""


@dataclass(slots=True, kw_only=True)
class _Letter:
    miner_id: str
    outcome: Outcome
    on_closed: Closed
    attempt: int = 0
    due: float = 0.0
    in_hand: bool = False  # a thread is submitting it right now
    told: bool = False

    def tell(self) -> None:
        if not self.told:
            self.told = True
            self.on_closed(self.outcome.task_id)


class Outbox:
    """One for all lanes. `answer` blocks for one request at most; it may be called from any thread."""

    def __init__(self, sequencer: Sequencer, journal: Journal, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sequencer = sequencer
        self._journal = journal
        self._clock = clock
        self._rng = random.Random()
        self._letters: dict[tuple[str, str], _Letter] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self.liveness = Liveness()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, grace: float = 5.0) -> None:
        """Try what is left for `grace` seconds, then leave it to the next start."""
        with self._changed:
            for letter in self._letters.values():
                letter.due = 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._letters, timeout=grace)
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def depth(self) -> int:
        """How many outcomes are not acknowledged."""
        return len(self._letters)

    @property
    def says(self) -> str:
        """One sentence in the present tense."""
        count = len(self._letters)
        return f"waiting for the sequencer to take {count} answer{'s'[: count != 1]}" if count else "nothing to submit"

    def answer(self, miner_id: str, outcome: Outcome, on_closed: Closed, *, facts: Facts | None = None) -> None:
        """Record the outcome and submit it; `on_closed` is called, maybe from another thread, once it is taken."""
        try:
            self._journal.answered(miner_id, outcome, facts)
        except MachineFault as fault:  # an answer that is in memory alone is still better than none
            log.error("answer_not_recorded", task_id=outcome.task_id, reason=fault.message, next="submitting it")
        self.resume(miner_id, outcome, on_closed)

    def resume(self, miner_id: str, outcome: Outcome, on_closed: Closed) -> None:
        """The same for an outcome that the journal has already."""
        key = (miner_id, outcome.task_id)
        letter = _Letter(miner_id=miner_id, outcome=outcome, on_closed=on_closed, in_hand=True)
        with self._changed:
            if key in self._letters:
                return
            self._letters[key] = letter
        self._try(letter)

    def has(self, miner_id: str, task_id: str) -> bool:
        return (miner_id, task_id) in self._letters

    def nudge(self) -> None:
        """The sequencer is there: try everything now."""
        with self._changed:
            for letter in self._letters.values():
                letter.due = 0.0
            self._changed.notify_all()

    def _run(self) -> None:
        while (letter := self._next()) is not None:
            self._try(letter)

    def _next(self) -> _Letter | None:
        """The next letter that is due, or None when it is time to stop."""
        with self._changed:
            while not self._stopping:
                waiting = [letter for letter in self._letters.values() if not letter.in_hand]
                first = min(waiting, key=lambda letter: letter.due, default=None)
                self.liveness.beat(max(first.due - self._clock(), 0.0) + REMOTE if first else IDLE)
                if first is not None and first.due <= self._clock():
                    first.in_hand = True
                    return first
                self._changed.wait(None if first is None else first.due - self._clock())
        return None

    def _try(self, letter: _Letter) -> None:
        task_id = letter.outcome.task_id
        try:
            verdict = self._sequencer.submit(letter.miner_id, letter.outcome)
            letter.tell()  # before the journal: the next task is sooner, and a crash here costs a repeated submission
            self._journal.closed(letter.miner_id, task_id, verdict)
        except (Retryable, MachineFault) as error:
            letter.attempt += 1
            at_least = error.retry_after or 0.0 if isinstance(error, Retryable) else 0.0
            pause = backoff(letter.attempt, rng=self._rng, at_least=at_least)
            metrics.SUBMISSIONS.labels("error").inc()
            metrics.RETRIES.labels("answer").inc()
            log.warning("answer_not_accepted", task_id=task_id, reason=error.message, next=f"again in {pause:.1f} s")
            with self._changed:
                letter.due = self._clock() + pause
                letter.in_hand = False
                self._changed.notify_all()
            return
        metrics.SUBMISSIONS.labels(verdict).inc()
        if verdict != "acknowledged":
            log.warning("answer_undeliverable", task_id=task_id, verdict=verdict, next="it is recorded; going on")
        with self._changed:
            del self._letters[letter.miner_id, task_id]
            self._changed.notify_all()
