"""Where a campaign takes place: devnet, ComfyUI and worker, the worker's connections through relays."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from urllib.parse import urlsplit

from tests.campaigns.chaos.work import workflows
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


class ChaosTestbed(Testbed):
    """`comfyui_url` names a real one, which is left alone; else the engine, which is not."""

    def __init__(self, folder: Path, *, comfyui_url: str = "") -> None:
        super().__init__(folder)
        self.own_engine = not comfyui_url
        self._comfyui_url = comfyui_url
        self._engine_port, self._devnet_port = free_port(), free_port()
        self._starts_before = 0

    def set_up(self) -> None:
        if self.own_engine:
            self.start_engine_again()
        self.start_devnet_again()
        self.comfyui = self.relay(self._comfyui_url or self.engine_url)
        self.sequencer = self.relay(self.devnet.url)
        self.start_worker(
            self.comfyui.url,
            workflows=workflows(self, test_nodes=self.own_engine),
            sequencer__url=self.sequencer.url,
            network__allow=[self.sequencer.host, urlsplit(self.devnet.url).netloc],
            upload__endpoint=self.sequencer.url,
            **SETTINGS,
        )

    def start_devnet_again(self) -> None:
        self.start_devnet("--leases", "2", port=self._devnet_port, s3=True)

    def start_engine_again(self) -> None:
        self.start_engine(port=self._engine_port)

    def restart_worker(self) -> None:
        """After its end, whichever that was."""
        self.worker.kill()
        self._starts_before = len(self.logged("started"))
        super().restart_worker()

    def reload_worker(self, poll_interval: float) -> None:
        """Another configuration: what is in hand is finished under the old one."""
        self._await_worker()
        config = self.folder / "config.toml"
        config.write_text(re.sub(r"poll_interval = .*", f"poll_interval = {poll_interval}", config.read_text()))
        self.worker.send(signal.SIGHUP)

    def _await_worker(self) -> None:
        """Until it has taken its signals over: before that, any of them ends it."""
        until(lambda: len(self.logged("started")) > self._starts_before, why="the worker's start")

    def stop_worker(self, *, hurry: bool) -> None:
        """Tell it to stop, once or twice; fails where it does not end as it should."""
        self._await_worker()
        if hurry:
            self.worker.send(signal.SIGTERM)
        code = self.worker.stop(timeout=60.0)
        assert code == 0, f"the worker ended with {code} after a SIGTERM"
