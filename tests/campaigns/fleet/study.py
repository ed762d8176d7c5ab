"""What the command runs for a fleet: each event, with and without `Prefer: wait`, idle and busy.

The seconds are as few as the figures allow: idle miners that poll show all they do within a few, held ones need the
20 s for which a request is held, and busy ones the 30 s that a task takes at most. After a minute's outage it takes a
minute until the last one is back.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.campaigns.fleet.decisions import Numbers
from tests.campaigns.fleet.simulation import BUSY, IDLE, Event, Scenario

MINUTE = Event(name="a minute's outage", what="refuses", seconds=60.0)
SILENCE = Event(name="a minute's silence", what="silent", seconds=60.0)
RESTART = Event(name="a restart of 2 s", what="refuses", seconds=2.0)
ROLLING = Event(name="a rolling restart", what="answers first", seconds=0.1)
RACK = Event(name="a tenth of them start at once", what="rack")
BURST = Event(name="a task for every other one", what="burst")

MANY = 10_000  # miners; fewer are watched for longer, so that they get as many tasks meanwhile

_POLLED = (  # load, seconds to settle, to be watched, what happens, seconds after it
    (IDLE, 1.0, 4.0, MINUTE, 60.0),
    (IDLE, 1.0, 4.0, SILENCE, 8.0),
    (IDLE, 1.0, 4.0, RESTART, 8.0),
    (BUSY, 30.0, 4.0, RESTART, 8.0),
)
_HELD = (
    (IDLE, 1.0, 20.0, MINUTE, 60.0),
    (IDLE, 1.0, 20.0, SILENCE, 45.0),
    (IDLE, 1.0, 20.0, RESTART, 45.0),
    (IDLE, 1.0, 20.0, ROLLING, 45.0),
    (IDLE, 1.0, 20.0, RACK, 30.0),
    (IDLE, 1.0, 20.0, BURST, 30.0),
    (BUSY, 30.0, 8.0, MINUTE, 45.0),
    (BUSY, 30.0, 8.0, SILENCE, 15.0),
    (BUSY, 30.0, 8.0, RESTART, 15.0),
)


def scenarios(miners: int, *, wait: bool, seed: int) -> Iterator[Scenario]:
    """Those of one fleet; the first of each load has the figures of its steady state, too."""
    numbers = Numbers() if wait else Numbers(wait=0.0)
    for load, settle, watch, event, after in _HELD if wait else _POLLED:
        yield Scenario(
            miners=miners,
            numbers=numbers,
            load=load,
            event=event,
            settle=settle,
            watch=watch * max(1.0, MANY / miners),
            after=after,
            seed=seed,
        )
