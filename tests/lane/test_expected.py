"""What a bench measured counts until the tasks themselves tell more."""

from __future__ import annotations

from miner.bundled import WORKFLOWS
from miner.comfy.client import Stats
from miner.expected import Measured
from miner.lane.offer import Offer
from miner.workflows import load_library

MEASURED = Measured(
    workflow="upscaler-lanczos", cold=9.0, warm=2.0, runs=1, peak_memory=None, device="card", comfyui="1", at=0.0
)


def offer_on(device):
    offer = Offer(
        load_library([WORKFLOWS], ids={"4": ["upscaler-lanczos"]}),
        enabled=["upscaler-lanczos"],
        refuse_unknown=False,
        measured={"upscaler-lanczos": MEASURED},
    )
    offer.refresh({}, Stats(version="0.33.0", device=device, on_gpu=True, vram_total=1, vram_free=1))
    return offer


def test_a_benched_workflow_is_known_before_its_first_task():
    assert offer_on("card").usual_seconds("upscaler-lanczos") == 2.0


def test_figures_of_another_card_do_not_count():
    assert offer_on("another").usual_seconds("upscaler-lanczos") is None


def test_real_tasks_tell_more():
    offer = offer_on("card")
    offer.rendered("upscaler-lanczos", seconds=12.0)
    offer.refresh({}, Stats(version="0.33.0", device="card", on_gpu=True, vram_total=1, vram_free=1))
    assert offer.usual_seconds("upscaler-lanczos") == 0.7 * 2.0 + 0.3 * 12.0
