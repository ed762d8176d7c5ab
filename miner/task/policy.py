"""Decisions without I/O: delays, lost leases, prefetch, restarts. Whose fault an error is: see `blame`.

Pure functions with time and randomness as arguments, so that tests and the fleet simulation run the worker's own code.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from miner.task.stages import Hold, Job, Lease, Prompted, Rendered, TaskInHand, Uploaded

MAX_SECONDS = 3600.0  # for a task, unless its workflow's timeout is longer
MAX_CRASHES = 2  # of the program, during one task
FIRST_BEAT = 0.2  # seconds from a lease to the first heartbeat: a task that is shorter costs no request
DOUBTFUL_BEAT = 2.0  # seconds after a reply that did not name a task in hand


# ---- delays -----------------------------------------------------------------------------------------------------


def backoff(attempt: int, *, rng: random.Random, base: float = 0.5, cap: float = 60.0, at_least: float = 0.0) -> float:
    """Seconds until retry number `attempt` (from 1): exponential with full jitter.

    `at_least`: the server's `Retry-After`. Jitter is added to it, so that a fleet does not return all at once.
    """
    spread = min(cap, base * 2.0 ** min(attempt - 1, 30))
    return at_least + rng.uniform(0.0, spread)


def idle_delay(poll_interval: float, *, rng: random.Random) -> float:
    """Seconds between two polls of an idle miner: `poll_interval` ± 50 %."""
    return poll_interval * rng.uniform(0.5, 1.5)


def return_delay(wait: float, *, rng: random.Random) -> float:
    """Seconds before the next long poll of `wait` seconds, after the sequencer ended the last one early or came back:
    all held requests ended at once, and this spreads the miners' return.
    """
    return rng.uniform(0.0, wait)


# ---- the sequencer's replies ------------------------------------------------------------------------------------


def observe(
    holds: Collection[Hold], *, running: str | None, canceled: Collection[str], eclipses: bool = True
) -> tuple[Hold, ...]:
    """The holds after a reply without a lease; lost ones have `taken_away`.

    A reply names one task at most. One that names none of those in hand is silence about all of them. One that names
    another is silence about this one only if that repeats: the sequencer may name its tasks in turn. `eclipses` False:
    it is known to name tasks in an order of its own.
    """
    known = any(hold.task_id == running for hold in holds)
    until_lost = Hold.UNTIL_LOST + len(holds) - 1 if eclipses else None
    return tuple(
        replace(hold, silences=Hold.UNTIL_LOST)
        if hold.task_id in canceled
        else _observe_one(hold, running if known else None, until_lost)
        for hold in holds
    )


def _observe_one(hold: Hold, running: str | None, until_lost: int | None) -> Hold:
    if running is None:
        return replace(hold, silences=hold.silences + hold.heard)
    if running == hold.task_id:
        turns = hold.takes_turns or hold.eclipses > 0
        return replace(hold, named=True, heard=True, silences=0, eclipses=0, takes_turns=turns)
    eclipses = hold.eclipses + (hold.named and not hold.takes_turns)
    lost = until_lost is not None and eclipses >= until_lost
    return replace(hold, heard=True, silences=Hold.UNTIL_LOST if lost else 0, eclipses=eclipses)


def next_beat(tasks: Collection[TaskInHand], *, asked_at: float, interval: float) -> float | None:
    """When to ask the sequencer again, Unix seconds; None without a task in hand. `asked_at`: the last request."""
    if not tasks:
        return None
    due = asked_at + interval
    for task in tasks:
        if not task.answered and task.lease.leased_at >= asked_at:
            due = min(due, task.lease.leased_at + FIRST_BEAT)
        if not task.answered and task.hold.doubtful:
            due = min(due, asked_at + DOUBTFUL_BEAT)
    return due


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How many tasks the sequencer lets this miner id hold, learned from its replies."""

    limit: int | None = None  # None: not refused yet
    learned_at: float = 0.0

    RELEARN_AFTER = 600.0  # seconds; the sequencer may be updated

    def now(self, *, prefetch: int, now: float) -> int:
        """The most tasks to hold, from 1 to 1 + `prefetch`."""
        known = self.limit if now - self.learned_at < self.RELEARN_AFTER else None
        return 1 + prefetch if known is None else max(1, min(known, 1 + prefetch))


def learn(allowance: Allowance, *, held: int, running: bool, leased: bool, now: float) -> Allowance:
    """The allowance after a reply to a request with `held` tasks in hand."""
    if held and leased and allowance.limit is not None and held + 1 > allowance.limit:
        return Allowance()
    if held and running:
        return Allowance(limit=held, learned_at=now)
    return allowance


@dataclass(frozen=True, slots=True)
class Average:
    """An exponential moving average."""

    value: float | None = None

    def after(self, value: float) -> Average:
        return Average(value if self.value is None else 0.7 * self.value + 0.3 * value)


def prefetchable(
    names: Collection[str], *, seconds: Mapping[str, float], timeouts: Mapping[str, float], busy_for: float
) -> tuple[str, ...]:
    """The workflows to prefetch: those that would finish in time if started in `busy_for` seconds.

    `seconds`: averages of whole tasks; workflows without one are not prefetched.
    """
    return tuple(n for n in names if n in seconds and busy_for + 1.5 * seconds[n] <= timeouts[n])


# ---- after a restart --------------------------------------------------------------------------------------------

Resume = Literal["continue", "answer", "submit", "too late", "crashed"]
"""resume at its stage · answer with the upload · submit the outcome again · answer: out of time · answer: crashed the
miner too often"""


def after_restart(task: TaskInHand, *, now: float) -> Resume:
    """What to do with a task from an earlier run.

    Finished work is always delivered, even late: the sequencer decides whether it counts. A prompt always continues:
    the render loop finds it in ComfyUI, and cancels it there if late.
    """
    if task.answered:
        return "submit"
    if isinstance(task.stage, Uploaded):
        return "answer"
    if task.crashes >= MAX_CRASHES:
        return "crashed"
    if isinstance(task.stage, (Prompted, Rendered)):
        return "continue"
    return "too late" if now >= deadline_of(task.job or task.lease) else "continue"


def deadline_of(work: Lease | Job) -> float:
    """Unix seconds. For a lease without a time-out, until its workflow sets it: MAX_SECONDS."""
    if isinstance(work, Job):
        return work.deadline
    return work.leased_at + (work.timeout_seconds or MAX_SECONDS)
