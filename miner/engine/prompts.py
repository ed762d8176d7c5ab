"""The prompts: waiting, running, and done. Safe from any thread; the wire's own view of each is kept ready.

A prompt that was deleted while it waited leaves nothing. One that ran is in the history, and nowhere else, from the
moment it is done.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from miner.engine.interrupt import Interrupt
from miner.engine.validate import Prompt

HISTORY = 10_000  # prompts; the oldest is forgotten beyond that


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A prompt that was accepted."""

    number: float  # the smallest runs first
    prompt_id: str  # the client's own word: two can be the same
    prompt: Prompt = field(repr=False)
    extra: Mapping[str, Any] = field(repr=False)  # extra_data
    outputs: tuple[str, ...]

    @property
    def client(self) -> str | None:
        return self.extra.get("client_id")

    def wire(self) -> list[Any]:
        """The five fields that /queue and /history show."""
        return [self.number, self.prompt_id, self.prompt, dict(self.extra), list(self.outputs)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """What POST /free asked for, to be done between two prompts."""

    memory: bool  # results of earlier runs too, and not only models


class Prompts:
    """The queue and the history. `changed(remaining)` is called, under the lock, whenever the queue has changed."""

    def __init__(self, *, changed: Callable[[int], None], interrupt: Interrupt) -> None:
        self._lock = threading.Condition()
        self._changed = changed
        self._interrupt = interrupt
        self._waiting: list[Submission] = []
        self._running: Submission | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._free: Free | None = None
        self._closed = False

    def put(self, submission: Submission) -> None:
        with self._lock:
            bisect.insort(self._waiting, submission, key=lambda one: one.number)
            self._announce()
            self._lock.notify_all()

    def take(self) -> Submission | Free | None:
        """The next thing to do; blocks. None: closed."""
        with self._lock:
            self._lock.wait_for(lambda: self._closed or self._free or self._waiting)
            if self._closed:
                return None
            if self._free:
                free, self._free = self._free, None
                return free
            self._running = self._waiting.pop(0)
            self._announce()
            return self._running

    def finish(self, submission: Submission, *, shown: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """The running prompt is done. `shown`: "outputs" and "meta", by node."""
        with self._lock:
            self._running = None
            self._history[submission.prompt_id] = {"prompt": submission.wire(), **shown, "status": status}
            if len(self._history) > HISTORY:
                del self._history[next(iter(self._history))]
            self._announce()

    def delete(self, prompt_id: str) -> bool:
        """Remove one waiting prompt with this id; returns whether there was one."""
        with self._lock:
            for submission in self._waiting:
                if submission.prompt_id == prompt_id:
                    self._waiting.remove(submission)
                    self._announce()
                    return True
            return False

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()
            self._announce()

    def interrupt(self, prompt_id: str) -> bool:
        """Ask the run to end if it is this prompt's; returns whether it is."""
        with self._lock:
            matches = self._running is not None and self._running.prompt_id == prompt_id
            if matches:
                self._interrupt.ask()
            return matches

    def free(self, *, memory: bool) -> None:
        with self._lock:
            self._free = Free(memory=memory or bool(self._free and self._free.memory))
            self._lock.notify_all()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def remaining(self) -> int:
        with self._lock:
            return self._remaining()

    def queue(self) -> tuple[list[Submission], list[Submission]]:
        """Running (at most one), waiting."""
        with self._lock:
            return [self._running] if self._running else [], list(self._waiting)

    def history(self, *, most: int | None = None, offset: int = -1) -> dict[str, Any]:
        """`most` entries from `offset` on, oldest first; a negative offset counts from the newest ones."""
        with self._lock:
            entries = list(self._history.items())
        start = max(0, len(entries) - most) if offset < 0 and most is not None else max(0, offset)
        return dict(entries[start:][:most])

    def done(self, prompt_id: str) -> dict[str, Any] | None:
        """The history's entry of a prompt."""
        with self._lock:
            return self._history.get(prompt_id)

    def forget(self, prompt_id: str) -> None:
        with self._lock:
            self._history.pop(prompt_id, None)

    def forget_all(self) -> None:
        with self._lock:
            self._history.clear()

    def _remaining(self) -> int:
        return len(self._waiting) + (self._running is not None)

    def _announce(self) -> None:
        self._changed(self._remaining())
