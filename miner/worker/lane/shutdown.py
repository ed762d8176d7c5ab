"""How far the worker is on its way out: one value, which every loop of every lane reads.

`running`; `draining`: nothing new is taken; `aborting`: what runs is interrupted, too. It only ever goes on.
"""

from __future__ import annotations

import threading
from typing import Literal

State = Literal["running", "draining", "aborting"]


class Shutdown:
    """One for all lanes. The events are how to wait for the value; both follow from it."""

    def __init__(self) -> None:
        self.state: State = "running"
        self.draining = threading.Event()  # set from `draining` on
        self.aborting = threading.Event()

    def drain(self) -> None:
        """Take nothing new; what is in hand, or leased by a request that is under way, goes on to its answer."""
        if self.state == "running":
            self.state = "draining"
            self.draining.set()

    def abort(self) -> None:
        """Interrupt what is in hand; it is answered with `miner is shutting down`."""
        self.drain()
        self.state = "aborting"
        self.aborting.set()
