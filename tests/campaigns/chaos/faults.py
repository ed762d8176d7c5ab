"""The faults of a campaign. Each breaks something for a moment that chance chooses, and mends it before it returns."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from tests.campaigns.chaos.testbed import ChaosTestbed

Fault = Callable[[ChaosTestbed, random.Random], None]

CALLS = ("miner_request", "miner_submit")
UPLOADS = ("store_put", "s3_put")


def miner_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.worker.kill()
    _last(rng, 0.3)
    testbed.restart_worker()


def miner_stopped(testbed: ChaosTestbed, rng: random.Random) -> None:
    """By one signal, which drains it, or by two, which interrupt what it renders."""
    testbed.stop_worker(hurry=rng.random() < 0.3)
    testbed.restart_worker()


def miner_reloaded(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.reload_worker(poll_interval=rng.uniform(0.04, 0.06))


def engine_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.engine.kill()
    _last(rng, 0.8)
    testbed.start_engine_again()


def engine_restarted(testbed: ChaosTestbed, _rng: random.Random) -> None:
    testbed.engine.stop()
    testbed.start_engine_again()


def engine_stopped(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.engine.send(signal.SIGSTOP)
    _last(rng, 2.0)
    testbed.engine.send(signal.SIGCONT)


def both_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.engine.kill()
    miner_killed(testbed, rng)
    testbed.start_engine_again()


def websocket_dropped(testbed: ChaosTestbed, _rng: random.Random) -> None:
    testbed.comfyui.cut("GET /ws")


def comfyui_cut(testbed: ChaosTestbed, rng: random.Random) -> None:
    """No way to ComfyUI, which goes on."""
    with testbed.comfyui.away():
        _last(rng, 1.0)


def sequencer_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.devnet_process.kill()
    _last(rng, 0.5)
    testbed.start_devnet_again()


def sequencer_away(testbed: ChaosTestbed, rng: random.Random) -> None:
    with testbed.sequencer.away():
        _last(rng, 1.5)


def task_canceled(testbed: ChaosTestbed, rng: random.Random) -> None:
    alive = [task["task_id"] for task in testbed.devnet.tasks() if task["status"] in ("waiting", "running")]
    if alive:
        with suppress(AssertionError):  # it has ended meanwhile
            testbed.cancel(rng.choice(alive))


def _rule(testbed: ChaosTestbed, rng: random.Random, action: str, routes: tuple[str, ...], **rule: Any) -> None:
    """devnet's own fault, for the next few calls."""
    testbed.devnet.fault(action, *routes, times=rng.randint(1, 3), **rule)


def _last(rng: random.Random, seconds: float) -> None:
    time.sleep(rng.uniform(0.0, seconds))  # how long it lasts is part of the draw


ON_THE_WIRE: Mapping[str, Fault] = {
    "miner killed": miner_killed,
    "miner stopped": miner_stopped,
    "miner reloaded": miner_reloaded,
    "websocket dropped": websocket_dropped,
    "comfyui cut off": comfyui_cut,
    "sequencer killed": sequencer_killed,
    "sequencer away": sequencer_away,
    "sequencer resets": partial(_rule, action="reset", routes=CALLS),
    "sequencer resets after acting": partial(_rule, action="reset", routes=CALLS, act=True),
    "sequencer garbage": partial(_rule, action="garbage", routes=CALLS),
    "sequencer garbage after acting": partial(_rule, action="garbage", routes=CALLS, act=True),
    "sequencer 500": partial(_rule, action="fail", routes=CALLS),
    "sequencer 500 after acting": partial(_rule, action="fail", routes=CALLS, act=True),
    "sequencer 429": partial(_rule, action="fail", routes=CALLS, status=429, headers={"Retry-After": "1"}),
    "sequencer drops replies": partial(_rule, action="drop_reply", routes=CALLS),
    "sequencer cuts replies": partial(_rule, action="truncate", routes=CALLS),
    "sequencer hangs": partial(_rule, action="hang", routes=CALLS, seconds=2.0),
    "upload 403": partial(_rule, action="fail", routes=UPLOADS, status=403),
    "upload 500": partial(_rule, action="fail", routes=UPLOADS),
    "upload hangs": partial(_rule, action="hang", routes=UPLOADS, seconds=4.0),
    "upload cut": partial(_rule, action="cut", routes=UPLOADS),
    "upload reply lost": partial(_rule, action="drop_reply", routes=UPLOADS),
    "input 500": partial(_rule, action="fail", routes=("input_get",)),
    "input reset": partial(_rule, action="reset", routes=("input_get",)),
    "task canceled": task_canceled,
}

ON_THE_ENGINE: Mapping[str, Fault] = {
    "engine killed": engine_killed,
    "engine restarted": engine_restarted,
    "engine stopped": engine_stopped,
    "engine and miner killed": both_killed,
}
