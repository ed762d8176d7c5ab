"""A test bed whose connections go through relays, and one task that is caught at a step.

A step is caught by holding the call that comes after it, so it does not depend on anybody's speed:

| step | what is under way |
| --- | --- |
| leased | the reply that leases the task |
| prepared | the fetch of its input |
| prompted | `POST /prompt` |
| rendering | ComfyUI is at it; a gate in the graph is closed |
| rendered | the upload |
| uploaded | the upload's reply: the object is in the store |
| answered | `POST /miner_submit` |
"""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from tests.support import flows
from tests.support.relay import Hold
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.testbed import Testbed, free_port, until

Step = Literal["leased", "prepared", "prompted", "rendering", "rendered", "uploaded", "answered"]
STEPS: tuple[Step, ...] = get_args(Step)

GATED = flows.wait(0.0, loads=True, until="")
PARAMETERS = f"""{flows.IMAGE}
[parameters.seconds]
type = "float"
default = 0.0
min = 0.0
max = 3600.0
bind = ["middle.seconds"]
[parameters.gate]
type = "string"
default = ""
max_length = 50
bind = ["middle.until"]
"""
SETTINGS = {
    "sequencer__heartbeat": 0.3,
    "sequencer__poll_interval": 0.05,
    "sequencer__timeout": 10.0,
    "sequencer__wait": 1.0,
    "network__input_timeout": 10.0,
    "upload__bucket": "results",
}


class Gate:
    """Holds a task in the middle of its render, until a file appears among ComfyUI's inputs."""

    def __init__(self, testbed: RelayedTestbed, name: str) -> None:
        self._testbed = testbed
        self._path = testbed.folder / "engine" / "input" / name

    def wait(self) -> None:
        until(lambda: self._testbed.queue()["queue_running"], why="the render")

    def release(self) -> None:
        self._path.write_bytes(b"")

    def drop(self, instead: bytes = b"") -> None:
        """What is rendered is not the worker's to lose."""


class RelayedTestbed(Testbed):
    """`held` keeps the task at its step."""

    def __init__(self, folder: Path, *, state: Path | None = None, s3: bool = False, **settings: Any) -> None:
        super().__init__(folder)
        self._with_s3 = s3
        self.state = state or folder / "state"
        self._settings = {**SETTINGS, **settings}
        self._numbers = itertools.count(1)
        self.step: Step = "leased"
        self.task_id = ""
        self.held: Hold | Gate

    def set_up(self) -> None:
        self.add_workflow("gated", GATED, parameters=PARAMETERS)
        self.comfyui = self.relay(self.start_engine(port=free_port()))
        self.sequencer = self.relay(self.start_devnet(s3=self._with_s3).url)
        web = ScriptedServer(lambda request: reply((self.folder / request.path[1:]).read_bytes()))
        self.inputs = self.relay(self.stack.enter_context(web).url)  # the consumer's web server
        self.start_worker(
            self.comfyui.url,
            workflows={"4": ["gated"]},
            sequencer__url=self.sequencer.url,
            network__allow=[self.sequencer.host, self.inputs.host],
            upload__endpoint=self.sequencer.url,
            state__dir=str(self.state),
            **self._settings,
        )

    @property
    def sound(self) -> bool:
        """Whether another task can be tried here."""
        idle = all(task["status"] not in ("waiting", "running") for task in self.devnet.tasks())
        return idle and self.worker.alive and self.engine.alive

    def begin(self, step: Step, *, acted: bool = False, target: str = "presigned") -> None:
        """Create a task, and wait until it is at `step`. `acted`: hold the reply of the last call, not its request."""
        until(self._owes_nothing, why="the end of what the last cell left")  # else its calls would be held here
        name = f"cell-{next(self._numbers)}"
        Image.new("RGB", (32, 24), "navy").save(self.folder / f"{name}.png")
        parameters: dict[str, Any] = {"image": f"{self.inputs.url}/{name}.png"}
        if step == "rendering":
            parameters |= {"gate": name, "seconds": 3600.0}
        self.step, self.held = step, self._hold(step, name, acted, "PUT /results" if target == "s3" else "PUT /store")
        self.task_id = self.create(parameters=parameters, target=target, extra={"mark": name})
        self.held.wait()

    def _owes_nothing(self) -> bool:
        path = self.state / "journal.db"
        if not path.exists():
            return True
        with closing(sqlite3.connect(path)) as journal:
            try:
                return not journal.execute("SELECT count(*) FROM tasks WHERE step != 'closed'").fetchone()[0]
            except sqlite3.OperationalError:  # it is being made
                return False

    def _hold(self, step: Step, name: str, acted: bool, upload: str) -> Hold | Gate:
        match step:
            case "leased":
                return self.sequencer.hold("POST /miner_request", has=f'"{name}"', reply=True)
            case "prepared":
                return self.inputs.hold("GET /")
            case "prompted":
                return self.comfyui.hold("POST /prompt", reply=acted)
            case "rendering":
                return Gate(self, name)
            case "rendered":
                return self.sequencer.hold(upload)
            case "uploaded":
                return self.sequencer.hold(upload, reply=True)
            case "answered":
                return self.sequencer.hold("POST /miner_submit", reply=acted)

    def end(self) -> dict[str, Any]:
        """The task, once it has ended; fails at once where it never will."""

        def look() -> dict[str, Any] | None:
            assert self.worker.alive, (self.folder / "worker.log").read_text()[-3000:]
            task = self.task(self.task_id)
            return task if task["status"] in ("finished", "failed", "canceled") else None

        task: dict[str, Any] = until(look, why=f"the end of {self.task_id}")
        return task
