"""Tasks of any JSON, by the dozen, for a real worker: each is answered once, and the next good one succeeds."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from tests.campaigns.fuzz.crowd import Order, crowd_in


def test_each_of_many_made_up_tasks_is_answered_once(tmp_path: Path) -> None:
    with crowd_in(tmp_path) as crowd:

        @settings(max_examples=3, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(crowd.orders(30))
        def serve(orders: list[Order]) -> None:
            crowd.serve(orders)

        serve()
        assert crowd.tried["failed"]
        assert crowd.tried["finished"]
