"""Where a campaign takes place: devnet, ComfyUI and worker, the worker's connections through relays."""

from __future__ import annotations

import re
import shutil
import signal
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.campaigns.chaos.work import workflows
from tests.support.clock_steps import SteppingClock
from tests.support.comfyui import ComfyUI, External, Installed, Managed
from tests.support.dashboard_testbed import quiet_port
from tests.support.no_network import NoNetwork
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.small_disk import SmallDisk
from tests.support.testbed import Testbed, free_port, until

DISK = "1400m"  # above what a bundled workflow wants to be free
SETTINGS: dict[str, Any] = {
    "miner__suffixes": [],
    "sequencer__heartbeat": 0.5,
    "sequencer__poll_interval": 0.05,
    "sequencer__wait": 1.0,
    "sequencer__timeout": 5.0,
    "network__input_timeout": 5.0,
    "upload__bucket": "results",
    "upload__timeout": 3.0,
    "log__level": "INFO",
    "status__enabled": True,
    "comfyui__stall_timeout": 30.0,
    "comfyui__interrupt_grace": 5.0,
}


class ChaosTestbed(Testbed):
    """`installed` is a real ComfyUI, else it is the engine; `managed`: the worker starts it, else the test bed does."""

    def __init__(self, folder: Path, *, installed: Installed | None = None, managed: bool = False) -> None:
        super().__init__(folder)
        self.real = installed is not None
        self.state_disk = self._disk(folder / "state")
        self.comfyui: ComfyUI = (Managed if managed else External)(self, installed)
        self.disks = [self._disk(self.comfyui.folder / name) for name in ("output", "input")]
        compiler = shutil.which("cc")
        self.clock = SteppingClock(folder) if compiler else None
        self.network = NoNetwork(folder) if compiler else None
        self._devnet_port, self._status_port = free_port(), quiet_port()
        self._starts_before = 0

    def set_up(self) -> None:
        self.comfyui.start()
        self.start_devnet_again()
        self.sequencer = self.relay(self.devnet.url)
        self.nothing = self.stack.enter_context(ScriptedServer(lambda _: reply({}, status=404)))
        self.to_comfyui = self.relay(self.comfyui.url) if self.comfyui.external_url else None
        self.start_worker(
            self.to_comfyui.url if self.to_comfyui else "",
            workflows=workflows(self),
            environ=self._preloaded(),
            program="tests.support.impatient",
            sequencer__url=_named(self.sequencer.url),
            network__allow=[
                _named(self.sequencer.host),
                urlsplit(self.nothing.url).netloc,
                f"localhost:{self._devnet_port}",
            ],
            upload__endpoint=_named(self.sequencer.url),
            status__port=self._status_port,
            **self.comfyui.settings,
            **SETTINGS,
        )
        self.config = (self.folder / "config.toml").read_text()
        until(self.ready, why="the first readiness", patience=240.0)
        self.files_before = self.comfyui.files()

    def _disk(self, folder: Path) -> SmallDisk:
        folder.mkdir(exist_ok=True)
        return self.stack.enter_context(closing(SmallDisk(folder, DISK)))

    def _preloaded(self) -> dict[str, str]:
        libraries = [one.environ for one in (self.clock, self.network) if one is not None]
        preloaded = {name: value for environ in libraries for name, value in environ.items()}
        return preloaded | {"LD_PRELOAD": ":".join(environ["LD_PRELOAD"] for environ in libraries)}

    def store_input(self, name: str, data: bytes) -> str:
        return _named(super().store_input(name, data))

    def start_devnet_again(self) -> None:
        self.start_devnet("--leases", "2", port=self._devnet_port, s3=True)

    def ready(self) -> bool:
        """As the miner says itself."""
        with suppress(requests.RequestException):
            return self.session.get(f"http://127.0.0.1:{self._status_port}/readyz", timeout=5).ok
        return False

    def restart_worker(self) -> None:
        """After its end, whichever that was."""
        self.worker.kill()
        self._starts_before = len(self.logged("started"))
        super().restart_worker()

    def reload_worker(self, **changed: Any) -> None:
        """The first configuration with other values: of a key that several sections have, the first."""
        self.await_worker()
        text = self.config
        for key, value in changed.items():
            text, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
            assert found == 1, key
        (self.folder / "config.toml").write_text(text)
        self.worker.send(signal.SIGHUP)

    def restore_config(self) -> None:
        (self.folder / "config.toml").write_text(self.config)

    def await_worker(self) -> None:
        """Until it has taken its signals over: before that, any of them ends it."""
        until(lambda: len(self.logged("started")) > self._starts_before, why="the worker's start")

    def stop_worker(self, *, hurry: bool) -> None:
        """Tell it to stop, once or twice; fails where it does not end as it should."""
        self.await_worker()
        if hurry:
            self.worker.send(signal.SIGTERM)
        code = self.worker.stop(timeout=60.0)
        assert code == 0, f"the worker ended with {code} after a SIGTERM"


def _named(place: str) -> str:
    """A place on this machine, under a name that has to be resolved."""
    return place.replace("127.0.0.1", "localhost")
