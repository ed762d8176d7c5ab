"""Tasks of any JSON, by the dozen, for a real worker: each is answered once, and the next good one succeeds."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from tests.campaigns.fuzz.load import LoadTestbed, Order


def test_each_of_many_made_up_tasks_is_answered_once(tmp_path: Path) -> None:
    with LoadTestbed(tmp_path) as testbed:

        @settings(max_examples=3, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(testbed.orders(30))
        def serve(orders: list[Order]) -> None:
            testbed.serve(orders)

        serve()
        testbed.finish()
        assert testbed.tried["failed"]
        assert testbed.tried["finished"]
