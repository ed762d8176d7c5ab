"""The file of measurements, and how they count until real tasks were rendered."""

from __future__ import annotations

import json

import pytest

from miner.comfy.replies import Stats
from miner.config.bundled import WORKFLOWS
from miner.machine import benchmarks
from miner.machine.benchmarks import Measurement
from miner.task.errors import MachineFault
from miner.worker.lane.capabilities import Capabilities
from miner.workflows import load_library


def measurement(name, warm=2.0, **rest):
    values = {"cold": 9.0, "runs": 1, "peak_memory": None, "device": "card", "comfyui": "0.33.0", "at": 1.0}
    return Measurement(workflow=name, warm=warm, **{**values, **rest})


def capabilities_on(device):
    capabilities = Capabilities(
        load_library([WORKFLOWS], ids={"4": ["upscaler-lanczos"]}),
        enabled=["upscaler-lanczos"],
        refuse_unknown=False,
        measured={"upscaler-lanczos": measurement("upscaler-lanczos")},
    )
    capabilities.refresh({}, Stats(version="0.33.0", device=device, on_gpu=True, vram_total=1, vram_free=1))
    return capabilities


def test_a_benched_workflow_is_known_before_its_first_task():
    assert capabilities_on("card").usual_seconds("upscaler-lanczos") == 2.0


def test_measurements_of_another_card_do_not_count():
    assert capabilities_on("another").usual_seconds("upscaler-lanczos") is None


def test_real_tasks_tell_more():
    capabilities = capabilities_on("card")
    capabilities.rendered("upscaler-lanczos", seconds=12.0)
    capabilities.refresh({}, Stats(version="0.33.0", device="card", on_gpu=True, vram_total=1, vram_free=1))
    assert capabilities.usual_seconds("upscaler-lanczos") == 0.7 * 2.0 + 0.3 * 12.0


def test_a_measurement_replaces_only_its_workflows(tmp_path):
    benchmarks.write(tmp_path, [measurement("a"), measurement("b")])
    benchmarks.write(tmp_path, [measurement("a", warm=3.0)])
    assert {name: one.warm for name, one in benchmarks.read(tmp_path).items()} == {"a": 3.0, "b": 2.0}
    assert [path.name for path in tmp_path.iterdir()] == [benchmarks.FILE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": 2, "workflows": [{}]}',
        '{"schema": 1, "workflows": {}}',
        '{"schema": 1, "workflows": [1, {}]}',
    ],
)
def test_an_invalid_file_is_ignored(tmp_path, text):
    (tmp_path / benchmarks.FILE).write_text(text)
    assert benchmarks.read(tmp_path) == {}


@pytest.mark.parametrize(
    "change", [{"warm": "fast"}, {"warm": 0}, {"cold": float("nan")}, {"warm": None}, {"cold": True}]
)
def test_an_invalid_row_is_ignored(tmp_path, change):
    benchmarks.write(tmp_path, [measurement("good")])
    document = json.loads((tmp_path / benchmarks.FILE).read_text())
    (row,) = document["workflows"]
    document["workflows"].append({**row, "workflow": "wrong", **change})
    assert list(benchmarks.parse(document)) == ["good"]


def test_a_failed_write_is_a_fault(tmp_path):
    (tmp_path / "state").touch()
    with pytest.raises(MachineFault, match="cannot write"):
        benchmarks.write(tmp_path / "state", [measurement("a")])
