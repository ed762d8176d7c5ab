"""Made-up tasks and replies for as long as one likes: `python -m tests.campaigns.fuzz --minutes 5`.

It prints how many cases were tried and what became of them. It ends with 1 at the first case that does not end as it
should, after hypothesis has printed the smallest one like it; `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from miner.telemetry import log
from tests.campaigns.fuzz.load import LoadTestbed, Order
from tests.campaigns.fuzz.replies import Replies
from tests.support.strategies import replies

REPLIES = 400  # a round
BATCHES, BATCH = 6, 50  # of tasks, a round

Tried = Counter[str]


def try_replies(folder: Path, number: int) -> Tried:
    """Replies of a sequencer through its client's parser and the journal, in this process."""
    with Replies(folder) as tried:

        @seed(number)
        @_many(REPLIES, Phase.generate, Phase.shrink)
        @given(replies(tried.library, tried.ids))
        def take(reply: bytes) -> None:
            tried.take(reply)

        take()
        return Counter({f"reply: {end}": count for end, count in tried.ends.items()})


def try_tasks(folder: Path, number: int) -> Tried:
    """Tasks for a real worker. A batch that fails is not made smaller: its worker is dead."""
    with LoadTestbed(folder) as testbed:

        @seed(number)
        @_many(BATCHES, Phase.generate)
        @given(testbed.orders(BATCH))
        def serve(orders: list[Order]) -> None:
            testbed.serve(orders)

        serve()
        testbed.finish()
        return Counter({f"task: {status}": count for status, count in testbed.tried.items()})


def _many(examples: int, *phases: Phase) -> settings:
    return settings(
        max_examples=examples, phases=phases, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


ROUNDS: tuple[Callable[[Path, int], Tried], ...] = (try_replies, try_tasks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long; at least one round is tried")
    parser.add_argument("--seed", type=int, default=None, help="of the first round; else one that nobody knows")
    options = parser.parse_args()
    log.setup(level="ERROR")
    first = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    end, tried, rounds = time.monotonic() + 60 * options.minutes, Counter[str](), 0
    while not rounds or time.monotonic() < end:
        for attempt in ROUNDS:
            print(f"seed {first + rounds}: {attempt.__name__}", flush=True)
            with tempfile.TemporaryDirectory(prefix="xalora-fuzz-") as folder:
                tried += attempt(Path(folder), first + rounds)
        rounds += 1
        print(f"{tried.total()} cases", flush=True)
    for kind, count in sorted(tried.items()):
        print(f"{count:8} {kind}")
    print(f"{tried.total()} cases were tried in {rounds} rounds; each ended in an answer or a clean refusal")


if __name__ == "__main__":
    main()
