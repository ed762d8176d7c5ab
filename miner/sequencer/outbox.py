"""The outbox: every outcome is submitted until the sequencer has acknowledged it.

The ledger has recorded it before, so nothing is lost here. The first try is made by the caller, so that a healthy
sequencer is answered at once; what fails is tried again by one thread, with backoff. It never changes an outcome.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from miner.sequencer import Sequencer
from miner.task.errors import Retryable
from miner.task.policy import backoff
from miner.task.stages import Outcome
from miner.telemetry import metrics
from miner.telemetry.liveness import IDLE, REMOTE, Liveness

log = structlog.get_logger()

OnClosed = Callable[[str, str], None]
"""Called once with a task's id and the verdict, when nothing is owed for it any more. It must not call the outbox."""


@dataclass(slots=True, kw_only=True)
class _Letter:
    miner_id: str
    outcome: Outcome
    on_closed: OnClosed
    attempt: int = 0
    due: float = 0.0
    in_hand: bool = False  # a thread is submitting it right now


class Outbox:
    """One for all lanes. `submit` blocks for one request at most; it may be called from any thread."""

    def __init__(self, sequencer: Sequencer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sequencer = sequencer
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
        return (
            f"waiting for the sequencer to acknowledge {count} answer{'s'[: count != 1]}"
            if count
            else "nothing to submit"
        )

    def submit(self, miner_id: str, outcome: Outcome, on_closed: OnClosed) -> None:
        """Submit the outcome; `on_closed` is called, maybe from another thread, once it is taken."""
        key = (miner_id, outcome.task_id)
        letter = _Letter(miner_id=miner_id, outcome=outcome, on_closed=on_closed, in_hand=True)
        with self._changed:
            if key in self._letters:
                return
            self._letters[key] = letter
        self._try(letter)

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
        """An unexpected error (a bug) is logged, and the letter is tried again like any other."""
        task_id = letter.outcome.task_id
        try:
            self._submit(letter)
        except Retryable as error:
            pause = self._again(letter, at_least=error.retry_after or 0.0)
            log.warning("answer_not_accepted", task_id=task_id, reason=error.message, next=f"again in {pause:.1f} s")
        except Exception:
            metrics.LOOP_CRASHES.labels("outbox").inc()
            pause = self._again(letter)
            log.exception("answer_crashed", task_id=task_id, next=f"again in {pause:.1f} s; please report this bug")

    def _submit(self, letter: _Letter) -> None:
        task_id = letter.outcome.task_id
        verdict = self._sequencer.submit(letter.miner_id, letter.outcome)
        metrics.SUBMISSIONS.labels(verdict).inc()
        if verdict != "acknowledged":
            log.warning("answer_undeliverable", task_id=task_id, verdict=verdict, next="it is recorded; going on")
        with self._changed:  # both at once: an answer to the same task that comes in between would be dropped
            letter.on_closed(task_id, verdict)
            del self._letters[letter.miner_id, task_id]
            self._changed.notify_all()

    def _again(self, letter: _Letter, *, at_least: float = 0.0) -> float:
        """Try the letter later; returns in how many seconds."""
        letter.attempt += 1
        pause = backoff(letter.attempt, rng=self._rng, at_least=at_least)
        metrics.SUBMISSIONS.labels("error").inc()
        metrics.RETRIES.labels("answer").inc()
        with self._changed:
            letter.due = self._clock() + pause
            letter.in_hand = False
            self._changed.notify_all()
        return pause
