"""A test bed with the dashboard on, and a workflow that takes as long as a test wants."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from tests.support import flows
from tests.support.paths import STAND_INS
from tests.support.testbed import Testbed, until

ACTION = {"X-Xalora-Action": "1"}
SLOW = flows.wait(1.0, steps=20, previews_per_second=10.0, until="")
PARAMETERS = """
seconds = { type = "float", default = 1.0, min = 0.0, max = 3600.0, bind = ["middle.seconds"] }
color = { type = "int", default = 0, min = 0, max = 16777215, bind = ["empty.color"] }
previews = { type = "float", default = 10.0, min = 0.0, max = 100.0, bind = ["middle.previews_per_second"] }
gate = { type = "string", max_length = 100, default = "", bind = ["middle.until"] }
words = { type = "string", max_length = 20000, bind = [], description = "accepted, not used" }
"""


def quiet_port() -> int:
    """A free port that no connection is given by chance: the system hands out those from 32768 on."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class DashboardTestbed(Testbed):
    """A miner seen from outside. `beside` another one, it shares that one's devnet and engine."""

    def __init__(
        self,
        folder: Path,
        *,
        beside: DashboardTestbed | None = None,
        environ: dict[str, str] | None = None,
        workflows: dict[str, list[str]] | None = None,
        leases: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(folder)
        self.port = quiet_port()
        self._beside = beside
        self._environ = environ
        self._ids = workflows or {"slow": ["slow"], "3": ["plain-picture"], "4": ["upscaler-lanczos"]}
        self._leases = leases
        self._settings = settings
        self._colors = itertools.count(1)

    def set_up(self) -> None:
        self.add_workflow("slow", SLOW, timeout=3600.0, parameters=PARAMETERS)
        if self._beside:
            self.devnet, self.engine_url = self._beside.devnet, self._beside.engine_url
        else:
            self.start_devnet("--leases", str(self._leases))
            self.start_engine("--preview-method", "auto")
        keys = {
            "status__enabled": True,
            "status__port": self.port,
            "sequencer__wait": 0.0,
            "workflows__folders": [str(self.workflows), str(STAND_INS)],
            **self._settings,
        }
        self.start_worker(self.engine_url, workflows=self._ids, environ=self._environ, **keys)
        self.until_served()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=10, **options)

    def now(self) -> dict[str, Any]:
        return self.get("/api/now").json()

    def history(self, **query: Any) -> list[dict[str, Any]]:
        return self.get("/api/history", params=query).json()["tasks"]

    def press(self, button: str, **headers: str) -> requests.Response:
        return self.session.post(f"{self.url}/api/{button}", headers={**ACTION, **headers}, timeout=10)

    def until_served(self) -> None:
        def answers() -> bool:
            try:
                return self.get("/readyz").ok
            except requests.ConnectionError:
                return False

        until(answers, why="the dashboard's first answer")

    def slow(self, seconds: float, **parameters: Any) -> str:
        """A task that takes so long; no node of it is cached."""
        return self.create(
            workflow_id="slow", parameters={"seconds": seconds, "color": next(self._colors), **parameters}
        )

    def open(self, gate: str) -> None:
        """End the wait of the task whose `gate` it is."""
        (self.folder / "engine" / "input" / gate).touch()

    def cancel(self, task_id: str) -> None:
        """As its consumer, and wait until the miner has let go of it."""
        super().cancel(task_id)
        until(lambda: not self.now()["lanes"][0]["tasks"], why="the end of the canceled task")

    def quick(self) -> str:
        return self.slow(0.0)


def events(reply: requests.Response) -> Iterator[tuple[str, Any]]:
    """(name, data) of a stream of server-sent events."""
    name = ""
    for line in reply.iter_lines(decode_unicode=True):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def first(stream: Iterator[tuple[str, Any]], name: str, which: Callable[[Any], bool] = lambda _: True) -> Any:
    """The data of the next event of that name that fits."""
    return next(data for found, data in stream if found == name and which(data))
