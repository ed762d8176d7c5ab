"""Every decision that needs no I/O: when to ask again, what silence means, what an error means, what to do after a
restart.

All functions are pure; time and chance come in as arguments, so that tests and the fleet simulation run the very code
that the worker runs.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from miner.task.stages import Hold, Job, Lease, Prompted, Rendered, TaskInHand, Uploaded

CRASHES_UNTIL_GIVEN_UP = 2  # runs of the program that one task may end


# ---- when to ask again ------------------------------------------------------------------------------------------


def backoff(attempt: int, *, rng: random.Random, base: float = 0.5, cap: float = 60.0, at_least: float = 0.0) -> float:
    """Seconds until attempt number `attempt` (the first retry is 1): exponential with full jitter.

    `at_least` is what the other side asked for (`Retry-After`); jitter comes on top of it, so that a fleet told the
    same number does not come back in the same second.
    """
    spread = min(cap, base * 2.0 ** min(attempt - 1, 30))
    return at_least + rng.uniform(0.0, spread)


def idle_delay(poll_interval: float, *, rng: random.Random) -> float:
    """Seconds between two asks of an idle miner: `poll_interval` on average, half of it either way."""
    return poll_interval * rng.uniform(0.5, 1.5)


def return_delay(wait: float, *, rng: random.Random) -> float:
    """Seconds before the next request that the sequencer may hold for `wait`, when it let go of the last one early or
    has just come back: all that it held end in one moment, and their miners are to come back over all of that time.
    """
    return rng.uniform(0.0, wait)


# ---- what the sequencer's replies say about the tasks in hand ---------------------------------------------------


def observe(holds: Collection[Hold], *, running: str | None, canceled: Collection[str]) -> tuple[Hold, ...]:
    """The holds after a reply; the lost ones have `taken_away`.

    A reply names one task at most, so silence speaks only about a task that is alone in hand: with two in hand, the
    other one may be the one that was named.
    """
    alone = len(holds) == 1
    return tuple(_observe_one(hold, alone, running) for hold in holds if hold.task_id not in canceled) + tuple(
        replace(hold, silences=Hold.UNTIL_LOST) for hold in holds if hold.task_id in canceled
    )


def _observe_one(hold: Hold, alone: bool, running: str | None) -> Hold:
    if running == hold.task_id:
        return replace(hold, confirmed=hold.confirmed or alone, silences=0)
    if alone and hold.confirmed:
        return replace(hold, silences=hold.silences + 1)
    return hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How many tasks the sequencer lets this miner id hold, as far as it has shown."""

    limit: int | None = None  # None: it has not refused yet
    learned_at: float = 0.0

    RELEARN_AFTER = 600.0  # seconds; a sequencer may be updated under a running miner

    def now(self, *, prefetch: int, now: float) -> int:
        """The number of tasks to hold at most, from 1 to 1 + `prefetch`."""
        known = self.limit if now - self.learned_at < self.RELEARN_AFTER else None
        return 1 + prefetch if known is None else max(1, min(known, 1 + prefetch))


def learn(allowance: Allowance, *, held: int, running: bool, leased: bool, now: float) -> Allowance:
    """The allowance after a reply to a request made with `held` tasks in hand."""
    if held and leased and allowance.limit is not None and held + 1 > allowance.limit:
        return Allowance()
    if held and running:
        return Allowance(limit=held, learned_at=now)
    return allowance


@dataclass(frozen=True, slots=True)
class Average:
    """A running average in which the latest of a few values weigh most."""

    value: float | None = None

    def after(self, value: float) -> Average:
        return Average(value if self.value is None else 0.7 * self.value + 0.3 * value)


def prefetchable(
    names: Collection[str], *, seconds: Mapping[str, float], timeouts: Mapping[str, float], busy_for: float
) -> tuple[str, ...]:
    """The workflows worth a lease ahead: those that would end in time though they start `busy_for` seconds from now.

    `seconds` are the running averages of whole tasks; a workflow without one is not taken ahead, since nothing is
    known of it.
    """
    return tuple(n for n in names if n in seconds and busy_for + 1.5 * seconds[n] <= timeouts[n])


# ---- what an error of ComfyUI means -----------------------------------------------------------------------------

Fault = Literal["task", "memory", "poisoned", "interrupted"]
"""Whose fault a failed run is: the task's; too little memory; a broken CUDA context; nobody's, it was interrupted."""

_MEMORY = ("outofmemoryerror", "allocation on device", "out of memory", "not enough memory")
_POISON = ("cuda error", "device-side assert", "illegal memory access", "cublas", "cudnn", "launch failure", "nccl")


def blame(exception_type: str, message: str) -> Fault:
    """What `execution_error`'s type and message mean; the words are those that PyTorch and ComfyUI use."""
    text = f"{exception_type} {message}".lower()
    if "interruptprocessing" in text:
        return "interrupted"
    if any(word in text for word in _MEMORY):
        return "memory"
    if any(word in text for word in _POISON):
        return "poisoned"
    return "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a workflow fares on this machine. Only faults of the machine count; a wrong task says nothing about it."""

    faults: int = 0  # in a row
    not_before: float = 0.0  # Unix seconds until which it is not offered

    FAULTS_UNTIL_TRIAL = 3
    FIRST_PAUSE = 60.0  # seconds before the first canary
    LONGEST_PAUSE = 600.0  # … and how far the pauses grow; also how long a want of memory keeps a workflow away

    @property
    def on_trial(self) -> bool:
        """One canary task at a time until one succeeds."""
        return self.faults >= self.FAULTS_UNTIL_TRIAL

    def offered(self, *, now: float, in_hand: bool) -> bool:
        """Whether to ask for a task of this workflow, `in_hand` telling whether there is one already."""
        return now >= self.not_before and not (self.on_trial and in_hand)

    def after_fault(self, *, now: float, memory: bool = False) -> Health:
        """`memory`: it ran out at the workflow's own defaults, so the next task would fare no better."""
        faults = self.faults + 1
        pause = 0.0
        if memory:
            pause = self.LONGEST_PAUSE
        elif faults >= self.FAULTS_UNTIL_TRIAL:
            pause = min(self.FIRST_PAUSE * 2.0 ** (faults - self.FAULTS_UNTIL_TRIAL), self.LONGEST_PAUSE)
        return Health(faults=faults, not_before=now + pause)


# ---- after a restart --------------------------------------------------------------------------------------------

Resume = Literal["go on", "answer", "submit", "too late", "crashed"]
"""its loop goes on with it · answer with what is uploaded · submit the outcome again · answer that its time is over ·
answer that it ended the miner too often"""


def after_restart(task: TaskInHand, *, now: float) -> Resume:
    """What to do with a task that an earlier run of the program left behind.

    Work that is done is always delivered, even late: the sequencer decides whether it still counts. A prompt goes on,
    late or not: who follows it finds out where ComfyUI has it, and ends it there, too.
    """
    if task.answered:
        return "submit"
    if isinstance(task.stage, Uploaded):
        return "answer"
    if task.crashes >= CRASHES_UNTIL_GIVEN_UP:
        return "crashed"
    if isinstance(task.stage, (Prompted, Rendered)):
        return "go on"
    return "too late" if now >= deadline_of(task.job or task.lease) else "go on"


def deadline_of(work: Lease | Job) -> float:
    """Unix seconds; infinity for a lease whose workflow is yet to say."""
    if isinstance(work, Job):
        return work.deadline
    return work.leased_at + work.timeout_seconds if work.timeout_seconds else float("inf")
