"""The metrics: what a run counts, and names as Prometheus wants them."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from miner.telemetry import metrics
from tests.support.testbed import until

UNITS = ("seconds", "bytes", "ratio", "celsius", "watts")
COUNTS = {
    "tasks",
    "task_crashes",
    "loop_crashes",
    "workflow_faults",
    "retries",
    "ignored_parameters",
    "lease_requests",
    "submissions",
    "comfyui_restarts",
    "comfyui_deaf",
}
LEVELS = {
    "tasks_in_hand",
    "outbox_depth",
    "comfyui_ready",
    "workflow_runnable",
    "workflow_paused",
    "paused",
    "draining",
    "build",
}
"""What has no unit: a number of things, and yes or no."""


def declared():
    return {family.name: family for family in metrics.REGISTRY.collect()}


def values(families, name, **labels):
    samples = next(f for f in families.values() if name in {s.name for s in f.samples}).samples
    return [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]


def test_a_run_counts_what_happened(families):
    assert values(families, "xalora_tasks_total", workflow="slow", outcome="done") == [2.0]
    assert sum(values(families, "xalora_tasks_total", outcome="refused")) == 1.0
    assert values(families, "xalora_tasks_total", workflow="slow", outcome="lost") == [1.0]
    assert values(families, "xalora_task_stage_seconds_count", workflow="slow", stage="render") == [2.0]
    assert values(families, "xalora_submissions_total", reply="acknowledged") == [3.0]
    assert values(families, "xalora_lease_requests_total", reply="task") == [4.0]
    assert values(families, "xalora_gpu_idle_gap_seconds_count", lane="0")[0] >= 1
    assert values(families, "xalora_output_bytes_total")[0] > 0
    assert values(families, "xalora_comfyui_ready", lane="0") == [1.0]
    assert values(families, "xalora_workflow_runnable", workflow="slow") == [1.0]
    assert values(families, "xalora_outbox_depth") == [0.0]
    assert values(families, "xalora_last_done_timestamp_seconds")[0] > 1e9
    assert values(families, "process_resident_memory_bytes")[0] > 1e6


def test_pausing_shows(run):
    def paused():
        families = {f.name: f for f in text_string_to_metric_families(run.get("/metrics").text)}
        return values(families, "xalora_paused")

    run.press("pause")
    assert paused() == [1.0]
    run.press("resume")
    until(lambda: paused() == [0.0], why="the resumption")


def test_no_label_has_a_value_that_a_consumer_chose(page):
    assert "<script" not in page.text
    families = {f.name: f for f in text_string_to_metric_families(page.text)}
    labels = {name for family in families.values() for sample in family.samples for name in sample.labels}
    ours = {"workflow", "outcome", "stage", "lane", "loop", "reply", "what", "fault", "gpu", "le", "version", "python"}
    assert labels <= ours


@pytest.mark.parametrize("name", [name for name in declared() if name.startswith("xalora_")])
def test_a_name_has_our_prefix_and_ends_with_its_base_unit(name):
    family, short = declared()[name], name.removeprefix("xalora_")
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", short)
    assert family.documentation.endswith(".")
    if family.type == "counter":
        assert short in COUNTS or short.endswith("bytes")
        assert all(sample.name.endswith("_total") for sample in family.samples)
    else:
        assert short in LEVELS or short.endswith(UNITS)
    assert not short.endswith(("_total", "_count", "_sum", "_bucket", "milliseconds", "_ms", "percent"))


def test_stages_have_buckets_from_a_tenth_of_a_second_to_twenty_minutes(families):
    bounds = {s.labels["le"] for s in families["xalora_task_stage_seconds"].samples if "le" in s.labels}
    assert {"0.1", "1200.0", "+Inf"} <= bounds
    assert len(bounds) <= 20


def test_the_page_is_what_the_parser_takes(page, families):
    assert page.headers["Content-Type"].startswith("text/plain")
    assert set(declared()) <= {name.removesuffix("_info") for name in families}
