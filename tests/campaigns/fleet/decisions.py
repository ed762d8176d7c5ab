"""What the simulated miners decide by: the worker's own functions, and the numbers of its lanes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miner.config import settings
from miner.sequencer.client import CONNECT
from miner.task import policy
from miner.task.stages import Hold
from miner.worker.lane.poll import EARLY, FIRST_PAUSE

_SEQUENCER = settings.Sequencer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The real functions, unless a test passes others to see that they count."""

    backoff: Callable[..., float] = policy.backoff
    idle_delay: Callable[..., float] = policy.idle_delay
    return_delay: Callable[..., float] = policy.return_delay
    observe: Callable[..., tuple[Hold, ...]] = policy.observe
    learn: Callable[..., policy.Allowance] = policy.learn
    prefetchable: Callable[..., tuple[str, ...]] = policy.prefetchable


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Seconds, as a miner has them that nobody configured, and one count."""

    poll_interval: float = _SEQUENCER.poll_interval
    heartbeat: float = _SEQUENCER.heartbeat
    wait: float = _SEQUENCER.wait  # how long a request may be held; 0: it never asks for that
    timeout: float = _SEQUENCER.timeout
    connect: float = CONNECT  # of `timeout`
    first_pause: float = FIRST_PAUSE
    first_beat: float = policy.FIRST_BEAT
    early: float = EARLY
    prefetch: int = settings.Miner().prefetch
