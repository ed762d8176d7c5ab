"""From a task's creation to its lease while the worker is idle, and how often an idle worker asks.

Several miners poll side by side, each with tasks of its own, so that there are enough samples in the time: what is
measured is mostly chance.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found
from tests.campaigns.bench.testbed import BenchTestbed, Miner, pause, refuse_failures


def measurements() -> Iterator[Measurement]:
    yield Measurement(
        cases=(
            Case(name="idle to lease, polling, p50", unit="ms", at_most=600.0, digits=0),
            Case(name="requests of an idle miner, polling", unit="a second", at_most=1.0),
        ),
        measure=_polling,
    )
    yield Measurement(
        cases=(
            Case(name="idle to lease, Prefer: wait, p50", unit="ms", at_most=20.0),
            Case(name="requests of an idle miner, Prefer: wait", unit="a second"),
        ),
        measure=_waiting,
    )


def _polling(testbed: BenchTestbed) -> Sequence[Found]:
    tasks, idle = (4, 10.0) if testbed.quick else (9, 15.0)
    return _measure(testbed, miners=8, tasks=tasks, apart=(1.7, 2.9), wait=0.0, idle=idle)


def _waiting(testbed: BenchTestbed) -> Sequence[Found]:
    tasks, idle = (10, 2.0) if testbed.quick else (30, 5.0)
    return _measure(testbed, miners=1, tasks=tasks, apart=(0.2, 0.5), wait=20.0, idle=idle)


def _measure(
    testbed: BenchTestbed, *, miners: int, tasks: int, apart: tuple[float, float], wait: float, idle: float
) -> Sequence[Found]:
    """`tasks` for each miner, random seconds `apart`; and the requests in so many `idle` seconds."""
    with ExitStack() as stack:
        devnet = stack.enter_context(testbed.devnet())
        work = testbed.wait_for(0)
        miners_up = [stack.enter_context(testbed.worker(devnet, work, sequencer__wait=wait)) for _ in range(miners)]
        for miner in miners_up:
            miner.until_offered()
        _create_in_turn(miners_up, tasks, apart)
        waits = sorted(one for miner in miners_up for one in _waits(miner.tasks()))
        began = time.time()
        pause(idle)
        rates = [_rate([seen["at"] for seen in miner.requests() if seen["at"] > began]) for miner in miners_up]
    note = f"{len(waits)} tasks, {miners} miners; p95 {waits[int(0.95 * len(waits))] * 1000:.0f} ms"
    return (
        Found(statistics.median(waits) * 1000, note),
        Found(statistics.mean(rates), f"over {idle:.0f} s, {miners} miners"),
    )


def _rate(moments: Sequence[float]) -> float:
    """How many a second, from the first to the last. Requests that are still held are none yet."""
    return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else 0.0


def _create_in_turn(miners: Sequence[Miner], tasks: int, apart: tuple[float, float]) -> None:
    """Each miner's tasks at moments of its own; blocks until the last one has had its time."""
    moments = [
        (at, number) for number in range(len(miners)) for at in accumulate(random.uniform(*apart) for _ in range(tasks))
    ]
    began = time.monotonic()
    for at, number in sorted(moments):
        pause(max(0.0, began + at - time.monotonic()))
        miners[number].create()
    pause(apart[1])


def _waits(tasks: Sequence[dict[str, Any]]) -> Iterator[float]:
    """Seconds from a creation to the lease by the sequencer's clock, where the task before was done by then."""
    refuse_failures(tasks)
    free_at = 0.0
    for task in tasks:
        if task["created_at"] > free_at and task["leased_at"]:
            yield task["leased_at"] - task["created_at"]
        free_at = task["answered_at"] or float("inf")
