"""Four lanes on four engines against one: what several GPUs in one process cost each other.

Engines on one machine share its cores, so a task waits and does not compute. Outputs come over /view, since the engines
have a folder each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.campaigns.bench.feed import per_minute
from tests.campaigns.bench.graphs import WAIT, Work
from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found
from tests.campaigns.bench.testbed import BenchTestbed
from tests.campaigns.bench.throughput import whole_way
from tests.support import proc

MILLISECONDS = 300  # of waiting a task
LANES = 4


def measurements() -> Iterator[Measurement]:
    yield Measurement(
        cases=(Case(name="four lanes on four engines, 300 ms graph", unit="x one lane", at_least=3.8, digits=2),),
        measure=_four_lanes,
    )


def _four_lanes(testbed: BenchTestbed) -> Sequence[Found]:
    urls = [testbed.start_engine().url for _ in range(LANES)]
    one = whole_way(testbed, _work(urls[:1]), leases=2).answered
    with proc.Busy() as busy:
        four = whole_way(testbed, _work(urls), leases=2, lanes=LANES).answered
    rates = per_minute(one), per_minute(four)
    note = f"{rates[1]:,.0f} tasks/min, one lane {rates[0]:,.0f}; two leases each; cores {busy.percent:.0f} % busy"
    return (Found(rates[1] / rates[0], note),)


def _work(urls: Sequence[str]) -> Work:
    """A worker has a lane for each of the URLs."""
    return Work(url=",".join(urls), workflow=WAIT, milliseconds=MILLISECONDS, values={"seconds": MILLISECONDS / 1000})
