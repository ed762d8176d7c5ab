"""Tasks a minute the whole way, against what the same ComfyUI does with its queue filled directly, and the miner's CPU
that a task costs.

The limit is measured right before and right after each case, and the case is compared with the mean of the two. The
added latency is devnet's fault of that name: on every call to the sequencer and the store, but not on connecting.
CPU is user and system time, by the kernel's count, of the worker and its picture decoders. The engine leaves a core
free that a real ComfyUI takes: with COMFYUI_URL, all of this is measured there and not on the engine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from miner.devnet.routes import MINER_ROUTES, STORE_ROUTES
from tests.campaigns.bench.feed import Run, feed, idle_gaps, median_gap, per_minute, runs_of
from tests.campaigns.bench.graphs import SCALE, Work, fill
from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found, NotMeasured
from tests.campaigns.bench.testbed import BenchTestbed, pause, refuse_failures
from tests.support import proc

GRAPHS = (30, 300)  # milliseconds a run, about
LEASES = {1: "one lease", 2: "two leases"}
CASES = (
    (1, 0, 30),
    (2, 0, 30),
    (1, 0, 300),
    (2, 0, 300),
    (2, 80, 300),
)  # leases, milliseconds added to each call, graph
AT_LEAST = {(1, 0, 30): 60.0, (2, 0, 30): 85.0, (2, 0, 300): 98.0, (2, 80, 300): 97.0}  # % of the limit
CPU_AT_MOST = {(1, 0, 30): 10.0, (2, 0, 30): 10.0}  # ms
SETTLE = 5  # first answers that are not counted: the worker starts, and learns the sequencer's rule


@dataclass(slots=True)
class Ground:
    """One ComfyUI under measurement: how to get each graph on it, and the limits that were measured last."""

    work: Callable[[BenchTestbed, int], Work]
    works: dict[int, Work] = field(default_factory=dict)
    limits: dict[int, list[Run]] = field(default_factory=dict)

    def on(self, testbed: BenchTestbed, milliseconds: int) -> Work:
        if milliseconds not in self.works:
            self.works[milliseconds] = self.work(testbed, milliseconds)
        return self.works[milliseconds]

    def limit(self, testbed: BenchTestbed, milliseconds: int) -> list[Run]:
        """ComfyUI alone, now."""
        work = self.on(testbed, milliseconds)
        seconds = testbed.seconds(5.0, quick=2.0) if milliseconds < 100 else testbed.seconds(8.0, quick=4.0)
        graph = partial(_graph, testbed, work)
        self.limits[milliseconds] = runs = feed(work.url, graph, seconds=seconds)
        return runs


def _graph(testbed: BenchTestbed, work: Work, number: int, prefix: str) -> dict[str, dict[str, object]]:
    return fill(testbed.library, work, number, prefix=prefix)


def measurements(comfyui: str) -> Iterator[Measurement]:
    """Every case on the real ComfyUI at that URL, if there is one, else on the engine."""
    work = partial(calibrated, comfyui) if comfyui else BenchTestbed.wait_for
    ground = Ground(work=work)
    for milliseconds in GRAPHS:
        yield _limit(ground, milliseconds)
        for leases, latency, of in CASES:
            if of == milliseconds:
                yield _case(ground, leases=leases, latency=latency, milliseconds=milliseconds)


def _limit(ground: Ground, milliseconds: int) -> Measurement:
    name = f"ComfyUI alone, {milliseconds} ms graph"
    cases = (
        Case(name=f"{name}: the limit", unit="tasks/min", digits=0),
        Case(name=f"{name}: idle gap p50", unit="ms"),
    )

    def measure(testbed: BenchTestbed) -> Sequence[Found]:
        runs = ground.limit(testbed, milliseconds)
        took = statistics.median(run.ended - run.started for run in runs) * 1000
        return Found(_rate(runs), f"a run takes {took:.0f} ms"), _gap(runs)

    return Measurement(cases=cases, measure=measure)


def _case(ground: Ground, *, leases: int, latency: int, milliseconds: int) -> Measurement:
    bounds = (leases, latency, milliseconds)
    added = f", {latency} ms added" if latency else ""
    name = f"{LEASES[leases]}{added}, {milliseconds} ms graph"
    cases = (
        Case(name=f"{name}: of the limit", unit="%", at_least=AT_LEAST.get(bounds)),
        Case(name=f"{name}: idle gap p50", unit="ms"),
        Case(name=f"{name}: CPU a task", unit="ms", at_most=CPU_AT_MOST.get(bounds)),
    )

    def measure(testbed: BenchTestbed) -> Sequence[Found]:
        work = ground.on(testbed, milliseconds)
        before = ground.limits.get(milliseconds) or ground.limit(testbed, milliseconds)
        with proc.Busy() as busy:
            way = whole_way(testbed, work, leases=leases, latency=latency)
        answered = way.answered
        runs = runs_of(work.url, way.miner_id)[SETTLE : SETTLE + len(answered)]
        after = ground.limit(testbed, milliseconds)
        limits, done = (_rate(before), _rate(after)), per_minute(answered)
        note = (
            f"{done:,.0f} tasks/min, limit {limits[0]:,.0f} before and {limits[1]:,.0f} after; "
            f"cores {busy.percent:.0f} % busy"
        )
        return Found(100 * done / statistics.mean(limits), note), _gap(runs), way.cpu

    return Measurement(cases=cases, measure=measure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What a worker did for some time, with a task always waiting."""

    answered: list[float]  # when: Unix seconds of the sequencer's acknowledgements
    miner_id: str
    cpu: Found  # ms a task


def whole_way(testbed: BenchTestbed, work: Work, *, leases: int, latency: int = 0, lanes: int = 1) -> Way:
    """Let one work, with so many leases in hand."""
    seconds = testbed.seconds(12.0, quick=4.0) if work.milliseconds < 100 else testbed.seconds(16.0, quick=8.0)
    with testbed.devnet(leases=leases) as devnet, testbed.worker(devnet, work) as miner:
        if latency:
            devnet.fault("latency", *MINER_ROUTES, *STORE_ROUTES, seconds=latency / 1000)
        for _ in range(lanes * (SETTLE + round(1.2 * seconds * 1000 / work.milliseconds))):
            miner.create()
        miner.until(lambda: sum(devnet.stats()["answers"].values()) >= SETTLE * lanes, why="the first answers")
        cpu, count = proc.cpu_of_all(miner.pid), sum(devnet.stats()["answers"].values())
        pause(seconds)
        cpu, count = proc.cpu_of_all(miner.pid) - cpu, sum(devnet.stats()["answers"].values()) - count
        tasks = miner.tasks()
    refuse_failures(tasks)
    answered = sorted(task["answered_at"] for task in tasks if task["answered_at"])
    if len(answered) == len(tasks):
        raise NotMeasured("there were too few tasks")
    spent = Found(cpu * 1000 / max(count, 1), f"{cpu:.2f} s for {count} tasks, the decoder's included")
    return Way(answered=answered[SETTLE * lanes :], miner_id=miner.miner_id, cpu=spent)


def _rate(runs: Sequence[Run]) -> float:
    return per_minute([run.ended for run in runs])


def _gap(runs: Sequence[Run]) -> Found:
    gaps = sorted(idle_gaps(runs))
    if not gaps:
        raise NotMeasured("there were too few runs")
    p95 = gaps[int(0.95 * len(gaps))]
    return Found(median_gap(runs), f"p95 {p95:.0f} ms, of {len(gaps)} gaps")


def calibrated(url: str, testbed: BenchTestbed, milliseconds: int) -> Work:
    """A core-node graph that takes about that long on the real ComfyUI at `url`: the picture's side is fitted."""
    side = 512
    for _ in range(4):
        work = Work(url=url, workflow=SCALE, milliseconds=milliseconds, values={"side": side})
        runs = feed(url, partial(_graph, testbed, work), seconds=3.0)
        took = statistics.median(run.ended - run.started for run in runs) * 1000
        side = min(8192, max(64, round(side * (milliseconds / took) ** 0.5)))
    return Work(url=url, workflow=SCALE, milliseconds=milliseconds, values={"side": side})
