"""How one crew of lanes ends: it drains, is interrupted, and at last is given up."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from miner.worker.lanes import Lanes

log = structlog.get_logger()

ABORT_GRACE = 30.0  # seconds; with ComfyUI's stop less than the 60 s that service managers allow after `drain_timeout`


class Ending:
    """Call `look` every now and then, from one thread."""

    def __init__(self, lanes: Lanes, *, clock: Callable[[], float]) -> None:
        self._lanes = lanes
        self._clock = clock
        self._abort_at = float("inf")
        self._give_up_at = float("inf")

    @property
    def began(self) -> bool:
        return self._abort_at < float("inf")

    def look(self, *, wanted: bool, at_once: bool) -> bool:
        """Begin to drain if an end is `wanted`; interrupt the tasks in hand `at_once`, or after the time to drain.

        Returns whether to give up: a thread hangs, in a decoder or the kernel, and will not end by itself.
        """
        now = self._clock()
        if wanted and not self.began:
            self._abort_at = now + self._lanes.settings.miner.drain_timeout
            log.info("draining", in_hand=self._lanes.in_hand, next="a second signal cancels the tasks in hand")
            self._lanes.drain()
        if self._give_up_at == float("inf") and (at_once or now >= self._abort_at):
            self._give_up_at = now + ABORT_GRACE
            log.warning("interrupting", in_hand=self._lanes.in_hand, next="answering that the miner is shutting down")
            self._lanes.abort()
        return now >= self._give_up_at
