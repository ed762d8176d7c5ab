"""Whether somebody looks at the dashboard."""

from __future__ import annotations

from miner.telemetry.audience import STAYS, Audience


def test_it_is_present_for_some_seconds_after_a_page_was_seen() -> None:
    now = 1000.0
    audience = Audience(clock=lambda: now)
    assert not audience.present
    audience.seen()
    now += STAYS - 0.1
    assert audience.present
    now += 0.1
    assert not audience.present
    audience.seen()
    assert audience.present
