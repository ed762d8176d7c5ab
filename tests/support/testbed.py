"""A devnet, an engine and a worker as real processes, for tests that need the whole way.

Each can be killed and started again; what the sequencer knows is read from devnet's control endpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
from PIL import Image

from miner.comfy import process_tree
from tests.support.devnet import Running
from tests.support.forks import Fork, can_fork
from tests.support.paths import ROOT
from tests.support.relay import Relay

if TYPE_CHECKING:
    from tests.support.s3 import S3

MINER_ID = "0x00000000000000000000000000000000000d37e0"
PATIENCE = 60.0  # seconds; a test that waits so long has failed, on any machine


def until(what: Callable[[], Any], *, why: str, patience: float = PATIENCE) -> Any:
    """The first true value of `what()`; fails with `why` after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if value := what():
            return value
        time.sleep(0.02)  # between two looks at another process, which tells nobody when it changes
    raise AssertionError(f"{why} did not happen within {patience:.0f} s")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Process:
    """One program, which can be started again under the same address."""

    command: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    forks: bool = field(default_factory=lambda: Fork.in_use)
    popen: subprocess.Popen[str] | Fork | None = None

    def start(self) -> Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("XALORA_", "COMFYUI_"))}
        environ |= self.env
        with self.log.open("a") as log:
            if self.forks and can_fork(self.command, environ):
                self.popen = Fork(self.command, stderr=log, env=environ)
            else:
                self.popen = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ)
        return self

    def first_line(self) -> str:
        return self.popen.stdout.readline().strip()

    def send(self, number: int) -> None:
        os.kill(self.popen.pid, number)

    def kill(self) -> None:
        if self.popen is None:
            return
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, wait, and return the exit code."""
        if self.popen is None or self.popen.returncode is not None:
            return self.popen.returncode if self.popen else 0
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(signal.SIGCONT)
        self.popen.terminate()
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise
        finally:
            self.popen.stdout.close()
        return self.popen.returncode

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None


class Testbed:
    """The three of them in one folder. Nothing is started before it is asked for."""

    __test__ = False  # its name begins with "Test"; pytest would collect it

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = ExitStack()  # what is closed after the processes
        self.session = self.stack.enter_context(requests.Session())
        self.session.trust_env = False
        self._processes: list[Process] = []
        self.worker: Process | None = None
        self.engine: Process | None = None
        self.engine_url = ""
        self.devnet: Running | None = None
        self.s3: S3 | None = None
        self.devnet_process: Process | None = None
        self.workflows = folder / "workflows"  # those of `add_workflow`

    def __enter__(self) -> Self:
        try:
            self.set_up()
        except BaseException:
            self.close()
            raise
        return self

    def set_up(self) -> None:
        """What a kind of test bed starts by itself."""

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- starting ---------------------------------------------------------------------------------

    def start_devnet(self, *options: str, port: int = 0, s3: bool = False) -> Running:
        """`s3`: from now on it hands out credentials for the S3 that is behind its `/results`."""
        if s3:
            from tests.support.s3 import running_s3  # boto3 and moto take half a second

            self.s3 = running_s3()
        flags = ["--port", str(port), "--state", str(self.folder / "devnet"), *options]
        if self.s3:
            flags += ["--s3", self.s3.url, "--credential", json.dumps(self.s3.credential)]
        self.devnet_process = self._start(_ours("tests.support.devnet", *flags, log=self.folder / "devnet.log"))
        url = self.devnet_process.first_line().rpartition("=")[2]
        assert url, (self.folder / "devnet.log").read_text()
        self.devnet = Running(url=url, session=self.session)
        return self.devnet

    def start_engine(self, *options: str, port: int = 0) -> str:
        flags = ["--port", str(port), "--base-directory", str(self.folder / "engine"), *options]
        self.engine = self._start(_ours("tests.support.engine", *flags, log=self.folder / "engine.log"))
        self.engine_url = self.engine.first_line()
        assert self.engine_url, (self.folder / "engine.log").read_text()
        return self.engine_url

    def start_worker(
        self,
        comfyui: str,
        *,
        workflows: dict[str, list[str]] | None = None,
        environ: dict[str, str] | None = None,
        program: str = "miner",
        **settings: Any,
    ) -> Process:
        """`workflows`: id → names. `settings` are keys of config.toml, with `__` for the dot."""
        config = self.folder / "config.toml"
        ids = workflows or {"4": ["upscaler-lanczos"]}
        values = {
            "sequencer.url": self.devnet.url,
            "sequencer.heartbeat": 0.5,
            "sequencer.poll_interval": 0.1,
            "miner.id": MINER_ID,
            "miner.min_free_disk_gb": 0.0,
            "workflows.enabled": sorted({name for names in ids.values() for name in names}),
            "workflows.on_cpu": sorted({name for names in ids.values() for name in names}),
            "workflows.folders": [str(self.workflows)] if self.workflows.is_dir() else [],
            "comfyui.url": comfyui,
            "state.dir": str(self.folder / "state"),
            "network.allow": [self.devnet.url.removeprefix("http://")],
            "status.enabled": False,
            "log.level": "DEBUG",
            "log.format": "json",
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        config.write_text(_toml(values, ids))
        command = [sys.executable, "-m", program, "run", "--config", str(config)]
        environ = {"PYTHONPATH": str(ROOT), **(environ or {})}
        self.worker = self._start(Process(command, self.folder / "worker.log", env=environ))
        return self.worker

    def add_workflow(self, name: str, graph: dict[str, Any], *, timeout: float = 120.0, parameters: str = "") -> str:
        """A workflow of the test's own, for workers started from now on; returns its name.

        Node "save" makes the result, a PNG. `parameters` are the manifest's tables, in TOML.
        """
        folder = self.workflows / name
        folder.mkdir(parents=True)
        (folder / "graph.json").write_text(json.dumps(graph))
        (folder / "workflow.toml").write_text(
            f'name = "{name}"\ntask_type = "upscaler"\ndescription = "for a test"\ntimeout_seconds = {timeout}\n'
            '[output]\nnode = "save"\nformat = "png"\n'
            '[needs]\nvram_gb = 0.0\ncomfyui = "0.3.0"\nmax_pixels = 1_000_000\n'
            f"[parameters]\n{parameters}"
        )
        return name

    def restart_worker(self) -> None:
        self.worker.start()

    def relay(self, url: str) -> Relay:
        """A relay to `url`, for as long as the test bed lasts."""
        return self.stack.enter_context(closing(Relay(url)))

    def add_process(self, command: list[str], log: Path, **env: str) -> Process:
        """One more, which ends with the test bed."""
        return self._start(Process(command, log, env))

    def _start(self, process: Process) -> Process:
        self._processes.append(process)
        return process.start()

    # ---- using ------------------------------------------------------------------------------------

    def picture(self, size: tuple[int, int] = (32, 24), name: str = "in.png") -> str:
        """Put a picture into the store; returns its URL."""
        path = self.folder / name
        Image.linear_gradient("L").resize(size).convert("RGB").save(path)
        return self.store_input(name, path.read_bytes())

    def store_input(self, name: str, data: bytes) -> str:
        """Put any bytes into the store; returns their URL."""
        return self.session.put(f"{self.devnet.url}/inputs/{name}", data=data, timeout=30).json()["url"]

    def create(self, task_type: str = "upscaler", workflow_id: str = "4", **rest: Any) -> str:
        """A task made by control, which checks nothing; `parameters` default to a small picture."""
        if "task_details" not in rest:
            rest["task_details"] = {"parameters": rest.pop("parameters", None) or {"image": self.picture()}}
        return self.devnet.create(task_type=task_type, workflow_id=workflow_id, any_miner=True, **rest)

    def task(self, task_id: str) -> dict[str, Any]:
        return next(task for task in self.devnet.tasks() if task["task_id"] == task_id)

    def ended(self, *task_ids: str, patience: float = PATIENCE) -> list[dict[str, Any]]:
        """The tasks, once each of them has ended."""

        def all_ended() -> list[dict[str, Any]] | None:
            tasks = {task["task_id"]: task for task in self.devnet.tasks()}
            chosen = [tasks[task_id] for task_id in task_ids]
            return chosen if all(t["status"] in ("finished", "failed", "canceled") for t in chosen) else None

        return until(all_ended, why=f"the end of {len(task_ids)} tasks", patience=patience)

    def cancel(self, task_id: str) -> None:
        """As its consumer."""
        body = {"task_id": task_id, "api_key": "devnet"}
        assert self.session.post(f"{self.devnet.url}/task_cancel", json=body, timeout=30).ok

    def queue(self) -> dict[str, list[Any]]:
        """The engine's queue, past any relay."""
        return self.session.get(f"{self.engine_url}/queue", timeout=30).json()

    def result(self, task: dict[str, Any]) -> bytes:
        """The file that a finished task's answer names."""
        if task["target"] == "s3":
            return self.s3.get(task["result"])
        reply = self.session.post(
            f"{self.devnet.url}/task_result_query",
            json={"task_id": task["task_id"], "api_key": "devnet"},
            timeout=30,
        )
        return self.session.get(reply.json()["result"]["url"], timeout=30).content

    def log(self) -> list[dict[str, Any]]:
        """What the worker has logged so far."""
        path = self.folder / "worker.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for line in lines for event in _events(line)]

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [e for e in self.log() if e["event"] == event and fields.items() <= e.items()]

    def close(self) -> None:
        for process in reversed(self._processes):
            process.kill()
        for file in (self.folder / "state").glob("comfyui-*/pid"):  # it outlives a worker that was killed
            left_behind = json.loads(file.read_text())
            found = process_tree.find_process(left_behind["pid"])
            if found is not None and found.started == left_behind["started"]:
                process_tree.end_tree(found, grace=0.0)
        self.stack.close()


def _ours(module: str, *arguments: str, log: Path) -> Process:
    """A program of the tests', found from any folder."""
    return Process([sys.executable, "-m", module, *arguments], log, env={"PYTHONPATH": str(ROOT)})


def _events(line: str) -> Iterator[dict[str, Any]]:
    """Those in a line of the log. A kill may cut one off in the middle, and the next start goes on in its line."""
    while (at := line.find("{")) >= 0:
        try:
            event, end = json.JSONDecoder().raw_decode(line, at)
        except json.JSONDecodeError:
            line = line[at + 1 :]
        else:
            if "event" in event:
                yield event
            line = line[end:]


def _toml(values: dict[str, Any], ids: dict[str, list[str]]) -> str:
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}")
    text = "".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
    return text + "[workflows.ids]\n" + "".join(f"{json.dumps(i)} = {json.dumps(names)}\n" for i, names in ids.items())
