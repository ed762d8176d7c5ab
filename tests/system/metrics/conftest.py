"""What a real run shows at /metrics, after a task of each outcome."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.dashboard_testbed import DashboardTestbed
from tests.support.testbed import until


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A miner that has done, refused and lost a task."""
    with DashboardTestbed(tmp_path_factory.mktemp("metrics")) as testbed:
        refused = testbed.create(task_type="<script>", workflow_id="3", parameters={"prompt": "<script>"})
        testbed.ended(testbed.quick(), testbed.quick(), refused)
        lost = testbed.slow(600.0)
        until(lambda: [task for task in testbed.now()["lanes"][0]["tasks"] if task["task_id"] == lost], why="the lease")
        testbed.cancel(lost)
        yield testbed


@pytest.fixture(scope="module")
def page(run):
    return run.get("/metrics")


@pytest.fixture(scope="module")
def families(page):
    return {family.name: family for family in text_string_to_metric_families(page.text)}
