"""Whether somebody looks at the dashboard, so that ComfyUI draws previews for them alone."""

from __future__ import annotations

from collections.abc import Callable

from miner.telemetry import clock

STAYS = 5.0  # seconds; a page reads several times a second, and reconnects after one


class Audience:
    """Shared by the dashboard and the lanes; any thread may use it. `clock` is in seconds."""

    def __init__(self, *, clock: Callable[[], float] = clock.now) -> None:
        self._clock = clock
        self._seen_at = float("-inf")

    def seen(self) -> None:
        """A page is open now."""
        self._seen_at = self._clock()

    @property
    def present(self) -> bool:
        """Whether a page was open in the last STAYS seconds."""
        return self._clock() - self._seen_at < STAYS
