"""A soak: quick tasks without a pause on a ComfyUI, and samples of what the worker holds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.campaigns.soak.samples import Sample, take
from tests.support import flows
from tests.support.comfyui import ComfyUI, External, Installed, Managed
from tests.support.testbed import Testbed, free_port, until

BACKLOG = 30  # tasks that wait: the worker is never without
LOOK = 0.25  # seconds between two looks at the backlog
IN_S3 = 20  # of so many tasks, one has its result in S3
SIDE = """
[parameters.side]
type = "int"
default = 64
min = 16
max = 512
bind = ["empty.width", "empty.height"]
"""


class SoakTestbed(Testbed):
    """The worker has its own defaults, the dashboard among them."""

    def __init__(self, folder: Path, *, installed: Installed | None, managed: bool) -> None:
        super().__init__(folder)
        self.comfyui: ComfyUI = (Managed if managed else External)(self, installed)

    def set_up(self) -> None:
        self.comfyui.start()
        self.start_devnet("--leases", "2", s3=True)
        self.start_worker(
            self.comfyui.external_url,
            workflows={"4": ["upscaler-lanczos"], "5": [self.add_workflow("plain", flows.plain(), parameters=SIDE)]},
            sequencer__heartbeat=10.0,
            sequencer__poll_interval=1.0,
            network__allow=[urlsplit(self.devnet.url).netloc],
            upload__endpoint=self.devnet.url,
            upload__bucket="results",
            status__enabled=True,
            status__port=free_port(),
            log__level="INFO",
            **self.comfyui.settings,
        )
        self.pictures = [self.picture((side, side), f"{side}.png") for side in (16, 64, 200)]
        until(lambda: self.logged("workflows_advertised"), why="a worker that leases", patience=240.0)


def soak(
    testbed: SoakTestbed, *, seconds: float, every: float, seed: int, say: Callable[[Sample], None]
) -> list[Sample]:
    """Feed for so long, and sample `every` so many seconds.

    Raises AssertionError where the worker ends or a task fails.
    """
    rng, begun = random.Random(seed), time.monotonic()
    samples: list[Sample] = []
    while (at := time.monotonic() - begun) < seconds:
        assert testbed.worker.alive, testbed.log()[-1:]
        counts = testbed.devnet.stats()["tasks"]
        assert not counts.get("failed"), "a task failed: see the log"
        for _ in range(BACKLOG - counts.get("waiting", 0)):
            _create(testbed, rng)
        if at >= len(samples) * every:
            samples.append(_sample(testbed, at=at, tasks=counts.get("finished", 0)))
            say(samples[-1])
        time.sleep(LOOK)
    return samples


def _create(testbed: SoakTestbed, rng: random.Random) -> None:
    target = "s3" if rng.randrange(IN_S3) == 0 else "presigned"
    if rng.random() < 0.5:
        testbed.create(workflow_id="5", parameters={"side": rng.randint(16, 128)}, target=target)
    else:
        testbed.create(parameters={"image": rng.choice(testbed.pictures)}, target=target)


def _sample(testbed: SoakTestbed, *, at: float, tasks: int) -> Sample:
    comfyui = testbed.comfyui.pid
    assert comfyui is not None, "ComfyUI has ended"
    state, folder = testbed.folder / "state", testbed.comfyui.folder
    return take(at=at, tasks=tasks, worker=testbed.worker.popen.pid, comfyui=comfyui, state=state, folder=folder)
