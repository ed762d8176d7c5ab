"""Where a campaign takes place: devnet, ComfyUI and worker, the worker's connections through relays."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.campaigns.chaos.work import workflows
from tests.support.relay import Relay
from tests.support.testbed import Testbed, free_port, until

SETTINGS = {
    "sequencer__heartbeat": 0.5,
    "sequencer__poll_interval": 0.05,
    "sequencer__wait": 1.0,
    "sequencer__timeout": 5.0,
    "network__input_timeout": 5.0,
    "upload__bucket": "results",
    "upload__timeout": 3.0,
    "log__level": "INFO",
}


class Stand:
    """`comfyui_url` names a real one, which is left alone; else the engine, which is not."""

    def __init__(self, testbed: Testbed, stack: ExitStack, *, comfyui_url: str) -> None:
        self.testbed = testbed
        self.own_engine = not comfyui_url
        self._engine_port, self._devnet_port = free_port(), free_port()
        if self.own_engine:
            comfyui_url = testbed.start_engine("--test-nodes", port=self._engine_port)
        self.start_devnet()
        self.comfyui = stack.enter_context(closing(Relay(comfyui_url)))
        self.sequencer = stack.enter_context(closing(Relay(testbed.devnet.url)))
        devnet = urlsplit(testbed.devnet.url).netloc
        testbed.start_worker(
            self.comfyui.url,
            workflows=workflows(testbed, test_nodes=self.own_engine),
            sequencer__url=self.sequencer.url,
            network__allow=[self.sequencer.host, devnet],
            upload__endpoint=f"{self.sequencer.url}/s3",
            **SETTINGS,
        )
        self._starts_before = 0

    def start_devnet(self) -> None:
        self.testbed.start_devnet("--leases", "2", port=self._devnet_port)

    def start_engine(self) -> None:
        self.testbed.start_engine("--test-nodes", port=self._engine_port)

    def restart_worker(self) -> None:
        """After its end, whichever that was."""
        self.testbed.worker.kill()
        self._starts_before = len(self.testbed.logged("started"))
        self.testbed.restart_worker()

    def reload_worker(self, poll_interval: float) -> None:
        """Another configuration: what is in hand is finished under the old one."""
        self._await_worker()
        config = self.testbed.folder / "config.toml"
        config.write_text(re.sub(r"poll_interval = .*", f"poll_interval = {poll_interval}", config.read_text()))
        self.testbed.worker.send(signal.SIGHUP)

    def _await_worker(self) -> None:
        """Until it has taken its signals over: before that, any of them ends it."""
        until(lambda: len(self.testbed.logged("started")) > self._starts_before, why="the worker's start")

    def stop_worker(self, *, hurry: bool) -> None:
        """Tell it to stop, once or twice; fails where it does not end as it should."""
        self._await_worker()
        if hurry:
            self.testbed.worker.send(signal.SIGTERM)
        code = self.testbed.worker.stop(timeout=60.0)
        assert code == 0, f"the worker ended with {code} after a SIGTERM"


@contextmanager
def stand_in(folder: Path, *, comfyui_url: str) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(stack.enter_context(Testbed(folder)), stack, comfyui_url=comfyui_url)
