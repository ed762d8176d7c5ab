"""Benchmarks count until real tasks were rendered."""

from __future__ import annotations

from miner.comfy.replies import Stats
from miner.config.bundled import WORKFLOWS
from miner.machine.benchmarks import Measurement
from miner.worker.lane.capabilities import Capabilities
from miner.workflows import load_library

MEASURED = Measurement(
    workflow="upscaler-lanczos", cold=9.0, warm=2.0, runs=1, peak_memory=None, device="card", comfyui="1", at=0.0
)


def capabilities_on(device):
    capabilities = Capabilities(
        load_library([WORKFLOWS], ids={"4": ["upscaler-lanczos"]}),
        enabled=["upscaler-lanczos"],
        refuse_unknown=False,
        measured={"upscaler-lanczos": MEASURED},
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
