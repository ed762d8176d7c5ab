"""The faults of a campaign. Each breaks something for a moment that chance chooses, and mends it before it returns."""

from __future__ import annotations

import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.campaigns.chaos.testbed import ChaosTestbed
from tests.support import proc
from tests.support.comfyui import Managed
from tests.support.testbed import until

Fault = Callable[[ChaosTestbed, random.Random], None]

CALLS = ("miner_request", "miner_submit")
UPLOADS = ("store_put", "s3_put")


# ---- the miner --------------------------------------------------------------------------------------------------


def miner_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.worker.kill()
    _last(rng, 0.3)
    testbed.restart_worker()


def miner_stopped(testbed: ChaosTestbed, rng: random.Random) -> None:
    """By one signal, which drains it, or by two, which interrupt what it renders."""
    testbed.stop_worker(hurry=rng.random() < 0.3)
    testbed.restart_worker()


def miner_reloaded(testbed: ChaosTestbed, rng: random.Random) -> None:
    """What is in hand is finished under the old configuration."""
    testbed.reload_worker(poll_interval=rng.uniform(0.04, 0.06))


def badly_reloaded(testbed: ChaosTestbed, rng: random.Random) -> None:
    """A configuration that cannot work changes nothing."""
    taken = urlsplit(testbed.devnet.url).port
    wrong: list[dict[str, Any]] = [
        {"enabled": '["upscaler-lanczos", "no-such-workflow"]'},
        {"suffixes": '["one", "too_many"]'},
        {"poll_interval": '"soon"'},
        {"port": taken},  # ComfyUI's where the miner starts it, else the dashboard's
    ]
    if isinstance(testbed.comfyui, Managed):
        wrong += [{"home": f'"{testbed.folder}"'}, {"python": '"/no/such/python"'}]
    testbed.reload_worker(**rng.choice(wrong))
    _last(rng, 2.0)
    testbed.restore_config()


def manifest_broken(testbed: ChaosTestbed, rng: random.Random) -> None:
    """As found at a reload."""
    testbed.await_worker()  # one that starts would refuse it, and rightly end
    manifest = testbed.workflows / "plain" / "workflow.toml"
    text = manifest.read_text()
    manifest.write_text(text[: len(text) // 2] + "\n[[")
    testbed.reload_worker(poll_interval=0.05)
    _last(rng, 2.0)
    manifest.write_text(text)


def clock_stepped(testbed: ChaosTestbed, rng: random.Random) -> None:
    """The miner's wall clock, and back."""
    testbed.clock.step(rng.choice([-86400, -3600, -20, 20, 3600, 86400]))
    _last(rng, 4.0)
    testbed.clock.step(0)


# ---- ComfyUI ----------------------------------------------------------------------------------------------------


def comfyui_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.comfyui.kill()
    _last(rng, 0.8)
    testbed.comfyui.start()


def comfyui_restarted(testbed: ChaosTestbed, _rng: random.Random) -> None:
    testbed.comfyui.stop()
    testbed.comfyui.start()


def comfyui_wedged(testbed: ChaosTestbed, rng: random.Random) -> None:
    """Alive, and deaf and dumb."""
    with _stopped(testbed):
        _last(rng, 8.0)


def comfyui_wedged_for_good(testbed: ChaosTestbed, _rng: random.Random) -> None:
    """Its owner, the miner, has to replace it."""
    pid = testbed.comfyui.send(signal.SIGSTOP)
    until(lambda: testbed.comfyui.pid not in (pid, None) and testbed.ready(), why="another ComfyUI", patience=120.0)


@contextmanager
def _stopped(testbed: ChaosTestbed) -> Iterator[None]:
    pid = testbed.comfyui.send(signal.SIGSTOP)
    yield
    if pid is not None and testbed.comfyui.pid == pid:  # else its owner has replaced it
        testbed.comfyui.send(signal.SIGCONT)


def both_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.comfyui.kill()
    miner_killed(testbed, rng)
    testbed.comfyui.start()


def memory_limited(testbed: ChaosTestbed, rng: random.Random) -> None:
    """Hardly more than it has now, as in a container."""
    pid = testbed.comfyui.pid
    if pid is None:
        return
    with suppress(ProcessLookupError):
        most = int(proc.virtual(pid) * 1e6) + rng.choice([0, 4, 64]) * 10**6
        resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        _last(rng, 5.0)
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def websocket_dropped(testbed: ChaosTestbed, _rng: random.Random) -> None:
    testbed.to_comfyui.cut("GET /ws")


def websocket_deaf(testbed: ChaosTestbed, rng: random.Random) -> None:
    """Connected, and no event comes through it any more."""
    with testbed.to_comfyui.deaf("GET /ws"):
        _last(rng, 3.0)


def comfyui_cut(testbed: ChaosTestbed, rng: random.Random) -> None:
    """No way to ComfyUI, which goes on."""
    with testbed.to_comfyui.away():
        _last(rng, 1.0)


# ---- disks and weights ------------------------------------------------------------------------------------------


def disk_full(testbed: ChaosTestbed, rng: random.Random) -> None:
    with rng.choice(testbed.disks).full():
        _last(rng, 5.0)


def disk_read_only(testbed: ChaosTestbed, rng: random.Random) -> None:
    with rng.choice(testbed.disks).read_only():
        _last(rng, 5.0)


def state_disk_full(testbed: ChaosTestbed, rng: random.Random) -> None:
    with testbed.state_disk.full():
        _last(rng, 3.0)


def weights(testbed: ChaosTestbed, rng: random.Random, *, become: Callable[[Path], bytes | None]) -> None:
    """One file of weights is something else, or gone, for a while."""
    path = testbed.comfyui.models / rng.choice(WEIGHTS)
    content, aside = become(path), path.with_name(f"{path.name}.aside")
    path.rename(aside)
    if content is not None:
        path.write_bytes(content)
    _last(rng, 6.0)
    aside.rename(path)


def _a_third(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(min(path.stat().st_size // 3, 2_000_000))


WEIGHTS = (  # the small ones more often: their tasks are more
    *("upscale_models/RealESRGAN_x4plus.safetensors",) * 3,
    "loras/tiny-flux.safetensors",
    "vae/ae.safetensors",
    "diffusion_models/flux1-dev.safetensors",
)
PAGE = b"<!doctype html><title>Sign in</title><form action=/login></form>"


# ---- the network ------------------------------------------------------------------------------------------------


def sequencer_killed(testbed: ChaosTestbed, rng: random.Random) -> None:
    testbed.devnet_process.kill()
    _last(rng, 0.5)
    testbed.start_devnet_again()


def sequencer_away(testbed: ChaosTestbed, rng: random.Random) -> None:
    with testbed.sequencer.away():
        _last(rng, 1.5)


def network_cut(testbed: ChaosTestbed, rng: random.Random) -> None:
    """Sequencer and store at once, for longer."""
    with testbed.sequencer.away():
        _last(rng, 6.0)


def no_names(testbed: ChaosTestbed, rng: random.Random) -> None:
    with testbed.network.names():
        _last(rng, 5.0)


def no_routes(testbed: ChaosTestbed, rng: random.Random) -> None:
    """To anything but ComfyUI."""
    with testbed.network.routes(but=urlsplit((testbed.to_comfyui or testbed.comfyui).url).port):
        _last(rng, 5.0)


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


ALWAYS: Mapping[str, Fault] = {
    "miner killed": miner_killed,
    "miner stopped": miner_stopped,
    "miner reloaded": miner_reloaded,
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

MACHINE: Mapping[str, Fault] = {
    "bad reload": badly_reloaded,
    "reload with a broken manifest": manifest_broken,
    "ComfyUI killed": comfyui_killed,
    "ComfyUI restarted": comfyui_restarted,
    "ComfyUI wedged": comfyui_wedged,
    "ComfyUI and miner killed": both_killed,
    "ComfyUI's memory limited": memory_limited,
    "network cut": network_cut,
}
"""Those that no task is to be blamed for."""

PRELOADED = {"clock stepped": clock_stepped, "no DNS": no_names, "network unreachable": no_routes}
DISKS = {
    "ComfyUI's disk full": disk_full,
    "ComfyUI's disk read-only": disk_read_only,
    "state's disk full": state_disk_full,
}
OWNED = {"ComfyUI wedged for good": comfyui_wedged_for_good}
RELAYED = {"websocket dropped": websocket_dropped, "websocket deaf": websocket_deaf, "ComfyUI cut off": comfyui_cut}
WITH_WEIGHTS = {
    "weights cut": partial(weights, become=_a_third),
    "weights a web page": partial(weights, become=lambda _: PAGE),
    "weights gone": partial(weights, become=lambda _: None),
}


def possible(testbed: ChaosTestbed) -> tuple[dict[str, Fault], list[str]]:
    """The faults that can strike here, and the names of those that cannot."""
    groups = (
        (PRELOADED, testbed.clock is not None),
        (DISKS, testbed.state_disk.mounted),
        (OWNED, testbed.to_comfyui is None),
        (RELAYED, testbed.to_comfyui is not None),
        (WITH_WEIGHTS, testbed.comfyui.models is not None),
    )
    here: dict[str, Fault] = {**ALWAYS, **MACHINE}
    for group, can in groups:
        here |= group if can else {}
    return here, [name for group, can in groups if not can for name in group]
