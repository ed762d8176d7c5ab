"""The worker's shutdown state, one value for every loop.

`running`; `draining`: leases nothing; `aborting`: cancels the tasks in hand. It never goes back.
"""

from __future__ import annotations

import threading
from typing import Literal

SHUTTING_DOWN = "this miner is shutting down; please create the task again"

State = Literal["running", "draining", "aborting"]


class Shutdown:
    """One for all lanes. The events are for waiting; both follow `state`."""

    def __init__(self) -> None:
        self.state: State = "running"
        self.draining = threading.Event()  # set from `draining` on
        self.aborting = threading.Event()

    def drain(self) -> None:
        """Lease nothing new; finish the tasks in hand or leased by a request under way."""
        if self.state == "running":
            self.state = "draining"
            self.draining.set()

    def abort(self) -> None:
        """Cancel the tasks in hand and answer that this miner is shutting down."""
        self.drain()
        self.state = "aborting"
        self.aborting.set()
