"""How a tuning looks: its plan, its trials, its choice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from miner.cli.tune import plan_lines, result_lines, tune_lines, tune_table
from miner.config import Settings
from miner.config.bundled import WORKFLOWS
from miner.doctor.tune import Tuning, choice
from miner.doctor.tune_candidates import Candidate
from miner.doctor.tune_policy import Limits, Trial, Verdict
from miner.doctor.tune_trials import Plan
from miner.machine.benchmarks import Measurement
from miner.machine.software import Basis
from miner.workflows import load_library

FAST = Trial(args=("--fast", "autotune"), warm={"flux-lora": (1.5,)}, ssim={"flux-lora": 0.97})
WRONG = Trial(args=("--use-sage-attention",), warm={"flux-lora": ()}, ssim={"flux-lora": 0.4})
BF16 = Trial(args=FAST.args, workflow="flux-lora", variant="bf16", failure="out of memory")
FOUND = Tuning(
    reference=Trial(args=(), warm={"flux-lora": (2.0, 9.0, 2.0)}, ssim={"flux-lora": 1.0}),
    trials=[(WRONG, "flux-lora looks different"), (FAST, ""), (BF16, "out of memory")],
    left_out={"upscaler": "a model is missing"},
    noise=0.012,
    arguments=Verdict(best=FAST, why="25% less time"),
    variants={"flux-lora": Verdict(best=None, why="nothing that was tried is faster")},
)


@pytest.fixture(scope="module")
def plan():
    return Plan(
        settings=Settings(state={"dir": "/state"}),
        lane=0,
        basis=Basis(card="RTX 4090"),
        candidates=(Candidate(args=FAST.args), Candidate(args=WRONG.args, skipped="not installed")),
        workflows=[load_library([WORKFLOWS], ids={}).get("upscaler")],
        runs=3,
        limit=None,
        limits=Limits(),
    )


def test_a_plan_lists_what_is_tried_and_the_time(plan):
    lines = list(plan_lines(plan, {}))
    assert lines[:3] == [
        "on RTX 4090, with upscaler:",
        "  try   --fast autotune",
        "  skip  --use-sage-attention: not installed",
    ]
    assert lines[3].startswith("3 to 7 trials")  # two of the defaults, the candidate; two rounds of two
    assert "unknown until" in lines[4]
    measured = Measurement(
        workflow="upscaler", cold=60.0, warm=10.0, runs=1, peak_memory=None, device="", comfyui="", at=1.0
    )
    known = {"upscaler": replace(measured, device="cuda:0 RTX 4090 : cudaMallocAsync")}
    assert "6 to 14 minutes" in list(plan_lines(plan, known))[4]  # a start, a cold render and three warm ones: 120 s
    assert "unknown until" in list(plan_lines(plan, {"upscaler": replace(measured, device="cuda:0 RTX 3060")}))[4]


def test_every_trial_is_a_line_with_its_reason():
    assert list(tune_lines(FOUND)) == [
        "ComfyUI's defaults: flux-lora 2.00 s; one of each 2.00 s, 0.0% saved, SSIM 1.000",
        "--use-sage-attention: flux-lora –; one of each –, – saved, SSIM 0.400; ruled out: flux-lora looks different",
        "--fast autotune: flux-lora 1.50 s; one of each 1.50 s, 25.0% saved, SSIM 0.970",
        "flux-lora as bf16: flux-lora –; one of each –, – saved, SSIM –; ruled out: out of memory",
    ]
    console = Console(width=140, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(tune_table(FOUND))
    assert "flux-lora looks different" in capture.get()
    assert "25.0%" in capture.get()


def test_the_choice_and_what_was_left_out_are_told(plan):
    assert list(result_lines(choice(plan, FOUND), FOUND))[:3] == [
        "left out: upscaler: a model is missing",
        "noise: two trials of the defaults differ by up to 1.2%",
        "chosen for RTX 4090: --fast autotune: 25% less time; variants of flux-lora: nothing that was tried is faster",
    ]
