"""The worker's memory after many tasks, and its share of a core while ComfyUI sends previews."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found, NotMeasured
from tests.campaigns.bench.testbed import BenchTestbed, Miner, pause
from tests.support import proc

AHEAD = 200  # tasks that are always waiting
FIRST = 20  # tasks after which all that a task needs is loaded
MOST_SECONDS = 420.0  # for the many tasks; with fewer done by then, the row says how many


def measurements() -> Iterator[Measurement]:
    yield Measurement(
        cases=(
            Case(name="the worker's RSS after 10,000 tasks", unit="MB", at_most=90.0),
            Case(name=f"… and how much more that is than after the first {FIRST}", unit="MB", at_most=5.0),
        ),
        measure=_many_tasks,
    )
    yield Measurement(
        cases=(Case(name="the worker's CPU, 10 previews a second", unit="% of a core", at_most=3.0, digits=2),),
        measure=_previews,
    )


def _many_tasks(testbed: BenchTestbed) -> Sequence[Found]:
    """Of a graph that takes next to no time, with two leases."""
    wanted = 300 if testbed.quick else 10_000
    with testbed.devnet(leases=2) as devnet, testbed.worker(devnet, testbed.wait_for(0)) as miner:
        miner.until_offered()
        idle = proc.rss(miner.pid)
        _keep_busy(miner, FIRST)
        first = proc.rss(miner.pid)
        done = _keep_busy(miner, wanted)
        last, peak = proc.rss(miner.pid), proc.peak_rss(miner.pid)
    note = f"after {done:,} tasks; peak {peak:.1f} MB"
    return Found(last, note), Found(
        last - first, f"{idle:.1f} MB idle, {first:.1f} MB after {FIRST}, {last:.1f} MB at the end"
    )


def _keep_busy(miner: Miner, wanted: int) -> int:
    """Have so many tasks done since the start, as far as time allows; returns how many were. All of them are over."""
    until = time.monotonic() + MOST_SECONDS
    answered = _answered(miner)
    created = answered
    while answered < wanted and time.monotonic() < until:
        for _ in range(created, min(wanted, answered + AHEAD)):
            miner.create()
            created += 1
        pause(0.25)
        answered = _answered(miner)
    miner.until(lambda: _answered(miner) == created, why="the end of the last tasks")
    pause(1.0)  # the worker is not done with a task when it has answered it
    return created


def _answered(miner: Miner) -> int:
    stats = miner.devnet.stats()
    if failed := stats["tasks"].get("failed"):
        raise NotMeasured(f"{failed} of the bench's own tasks failed")
    return stats["answers"].get("first", 0)


def _previews(testbed: BenchTestbed) -> Sequence[Found]:
    seconds = testbed.seconds(10.0, quick=4.0)
    work = testbed.wait_for(round((seconds + 3.0) * 1000), previews=10.0)
    with testbed.devnet() as devnet, testbed.worker(devnet, work) as miner:
        task_id = miner.create()
        miner.until(lambda: any(task["status"] == "running" for task in miner.tasks()), why="the lease")
        pause(1.0)
        before = proc.cpu_seconds(miner.pid)
        pause(seconds)
        used = proc.cpu_seconds(miner.pid) - before
        miner.until_ended(task_id)
    return (Found(100 * used / seconds, f"over {seconds:.0f} s, all threads, heartbeats among it"),)
