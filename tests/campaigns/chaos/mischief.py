"""The faults of a campaign. Each breaks something for a moment that chance chooses, and mends it before it returns."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.campaigns.chaos.stand import Stand

Fault = Callable[[Stand, random.Random], None]

CALLS = ("miner_request", "miner_submit")
UPLOADS = ("store_put", "s3_put")


def miner_killed(stand: Stand, rng: random.Random) -> None:
    stand.testbed.worker.kill()
    _last(rng, 0.3)
    stand.restart_worker()


def miner_stopped(stand: Stand, rng: random.Random) -> None:
    """By one signal, which drains it, or by two, which interrupt what it renders."""
    stand.stop_worker(hurry=rng.random() < 0.3)
    stand.restart_worker()


def miner_reloaded(stand: Stand, rng: random.Random) -> None:
    stand.reload_worker(poll_interval=rng.uniform(0.04, 0.06))


def engine_killed(stand: Stand, rng: random.Random) -> None:
    stand.testbed.engine.kill()
    _last(rng, 0.8)
    stand.start_engine()


def engine_restarted(stand: Stand, _rng: random.Random) -> None:
    stand.testbed.engine.stop()
    stand.start_engine()


def engine_stopped(stand: Stand, rng: random.Random) -> None:
    stand.testbed.engine.send(signal.SIGSTOP)
    _last(rng, 2.0)
    stand.testbed.engine.send(signal.SIGCONT)


def both_killed(stand: Stand, rng: random.Random) -> None:
    stand.testbed.engine.kill()
    miner_killed(stand, rng)
    stand.start_engine()


def websocket_dropped(stand: Stand, _rng: random.Random) -> None:
    stand.comfyui.cut("GET /ws")


def comfyui_cut(stand: Stand, rng: random.Random) -> None:
    """No way to ComfyUI, which goes on."""
    with stand.comfyui.away():
        _last(rng, 1.0)


def sequencer_killed(stand: Stand, rng: random.Random) -> None:
    stand.testbed.devnet_process.kill()
    _last(rng, 0.5)
    stand.start_devnet()


def sequencer_away(stand: Stand, rng: random.Random) -> None:
    with stand.sequencer.away():
        _last(rng, 1.5)


def task_canceled(stand: Stand, rng: random.Random) -> None:
    alive = [task["task_id"] for task in stand.testbed.devnet.tasks() if task["status"] in ("waiting", "running")]
    if alive:
        body = {"task_id": rng.choice(alive), "api_key": "devnet"}
        stand.testbed.session.post(f"{stand.testbed.devnet.url}/task_cancel", json=body, timeout=30)


def _rule(stand: Stand, rng: random.Random, action: str, routes: tuple[str, ...], **rule: Any) -> None:
    """devnet's own fault, for the next few calls."""
    stand.testbed.devnet.fault(action, *routes, times=rng.randint(1, 3), **rule)


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
