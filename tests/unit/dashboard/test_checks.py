"""Health checks: each problem's mark, sentence and fix, and its effect on the probes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from miner.dashboard.checks import HealthInputs, is_alive, is_ready, marks
from miner.dashboard.gpus import Card, Sample
from miner.dashboard.snapshot import LaneSnapshot, LoopSnapshot, Snapshot

AT = 10_000.0
LANE = LaneSnapshot(
    name="0",
    miner_id="0x0",
    says="waiting for a task",
    device="NVIDIA",
    comfyui_url="http://127.0.0.1:8188",
    comfyui_version="0.33.0",
    comfyui_ready=True,
    comfyui_restarts=0,
    comfyui_deaf=False,
    without_comfyui_since=0.0,
    failed=False,
    loops=tuple(
        LoopSnapshot(name=name, says="idle", late=0.0) for name in ("prepare", "render", "deliver", "heartbeat")
    ),
    tasks=(),
)
NOW = Snapshot(
    version="1",
    miner_id="0x0",
    sequencer="sequencer.example",
    answered_at=AT - 1,
    started_at=AT - 5000,
    state="working",
    says="waiting for a task",
    outbox=LoopSnapshot(name="outbox", says="nothing to submit", late=0.0),
    unacknowledged=0,
    lanes=(LANE,),
)
HOT = Card(
    index=0,
    name="RTX",
    memory_total=1,
    samples=(Sample(at=AT, load=1.0, memory=1, temperature=91.0, power=None),),
)
HEALTHY = HealthInputs(
    now=NOW,
    at=AT,
    runnable=2,
    enabled=2,
    resting=(),
    free_disk=10**11,
    least_disk=5 * 10**9,
    wait=20.0,
    give_up_after=1800.0,
)


def lane(**changes):
    return replace(HEALTHY, now=replace(NOW, lanes=(replace(LANE, **changes),)))


def now(**changes):
    return replace(HEALTHY, now=replace(NOW, **changes))


def gone(seconds):
    return {"comfyui_ready": False, "without_comfyui_since": AT - seconds}


LATE = (replace(LANE.loops[0], late=40.0), *LANE.loops[1:])
OUTBOX = LoopSnapshot(name="outbox", says="waiting for the sequencer to acknowledge 3 answers", late=0.0)

PROBLEMS = {
    # problem: (inputs, alive, ready, the mark's name, its level, what it says)
    "all is well": (HEALTHY, True, True, "Lane 0", "good", "all loops are alive"),
    "a loop is stuck": (lane(loops=LATE), False, False, "Lane 0", "bad", "prepare has been stuck for 40 s"),
    "a loop ended by a bug": (lane(failed=True), False, False, "Lane 0", "bad", "a bug"),
    "the outbox is stuck": (now(outbox=replace(OUTBOX, late=9.0)), False, False, "Outbox's loop", "bad", "9 s"),
    "ComfyUI is away": (lane(comfyui_ready=False), True, False, "ComfyUI of lane 0", "bad", "idle"),
    "ComfyUI is deaf": (lane(comfyui_deaf=True), True, True, "ComfyUI of lane 0", "warning", "stream is silent"),
    "ComfyUI restarts": (lane(comfyui_restarts=4), True, True, "ComfyUI of lane 0", "warning", "restarted 4 times"),
    "its GPU is gone": (lane(**gone(1800.0)), False, False, "ComfyUI", "bad", "for 30 min"),
    "it may come back": (lane(**gone(1799.0)), True, False, "ComfyUI of lane 0", "bad", "idle"),
    "silence": (now(answered_at=AT - 111), True, False, "Sequencer", "bad", "last answered 111 s ago"),
    "a held request": (now(answered_at=AT - 109), True, True, "Sequencer", "good", "answers"),
    "never an answer": (now(answered_at=0.0), True, False, "Sequencer", "bad", "has not answered since startup"),
    "a fresh start": (now(answered_at=0.0, started_at=AT - 5), True, True, "Sequencer", "note", "has not answered"),
    "paused": (now(state="paused", answered_at=AT - 999), True, True, "Leasing", "note", "paused"),
    "draining": (now(state="draining"), True, False, "Leasing", "bad", "draining"),
    "nothing runs": (replace(HEALTHY, runnable=0), True, False, "Workflows", "bad", "no enabled workflow can run"),
    "some run": (replace(HEALTHY, runnable=1), True, True, "Workflows", "note", "1 of 2"),
    "some are paused": (replace(HEALTHY, resting=("a: it broke",)), True, True, "Workflows", "warning", "a: it broke"),
    "all are paused": (replace(HEALTHY, resting=("a: x", "b: y")), True, False, "Workflows", "bad", "2 of 2"),
    "answers wait": (now(unacknowledged=3, outbox=OUTBOX), True, True, "Outbox", "warning", "3 answers"),
    "disk is tight": (replace(HEALTHY, free_disk=9 * 10**9), True, True, "Disk", "warning", "9.0 GB free"),
    "disk is full": (replace(HEALTHY, free_disk=10**9), True, False, "Disk", "bad", "leasing stopped"),
    "a broken LoRA": (
        replace(HEALTHY, broken_loras={"a.safetensors": "it is empty"}),
        *(True, True, "LoRAs", "warning", "a.safetensors is broken: it is empty"),
    ),
    "a hot GPU": (replace(HEALTHY, cards=(HOT,)), True, True, "GPU 0", "warning", "91 °C"),
}


@pytest.mark.parametrize(("inputs", "alive", "ready", "name", "level", "says"), PROBLEMS.values(), ids=PROBLEMS)
def test_each_problem_has_its_mark_and_fails_the_right_probes(inputs, alive, ready, name, level, says):
    (mark,) = [mark for mark in marks(inputs) if mark.name == name]
    assert mark.level == level
    assert says in mark.says
    assert (is_alive(inputs), is_ready(inputs)) == (alive, ready)
    assert all(mark.cure for mark in marks(inputs) if mark.level == "bad" and mark.name != "Leasing")


def test_one_lane_without_comfyui_leaves_the_miner_alive_and_ready():
    away = replace(LANE, name="1", **gone(1e6))
    inputs = replace(HEALTHY, now=replace(NOW, lanes=(LANE, away)))
    assert (is_alive(inputs), is_ready(inputs)) == (True, True)


def test_what_cannot_be_erased_is_shown_and_stops_nothing():
    inputs = lane(uncleaned=2, uncleaned_why="cannot delete /x: Permission denied")
    (mark,) = [mark for mark in marks(inputs) if mark.name == "Leftovers of lane 0"]
    assert (mark.level, "2 finished tasks" in mark.says, "Permission denied" in mark.says) == ("warning", True, True)
    assert is_ready(inputs)
